-- For how long a device stood still because of a deployment, in milliseconds; NULL where nobody knows.
ALTER TABLE deployment ADD COLUMN downtime_ms BIGINT;
