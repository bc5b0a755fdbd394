-- What decoding a payload takes: memory in bytes, and bits that models decode.
ALTER TABLE payload ADD COLUMN memory BIGINT NOT NULL DEFAULT 0;
ALTER TABLE payload ADD COLUMN work BIGINT NOT NULL DEFAULT 0;
