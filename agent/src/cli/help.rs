//! Text of `--help`.

pub(super) const HELP: &str = "\
tidegate-agent: keeps one machine on the release that its fleet is to run

USAGE
  tidegate-agent enroll --server URL --token TOKEN --product NAME [options]
  tidegate-agent run     [--state DIR] [--self-state DIR]
  tidegate-agent status  [--state DIR] [--json]
  tidegate-agent doctor  [--state DIR] [--json]        look into why it does not work
  tidegate-agent check-now | pause [--for 8h] | resume | rollback    [--state DIR]
                         what a person at the machine may ask of the running agent
  tidegate-agent apply FOLDER [--result FILE] [--no-wait]   without a network: apply a site bundle
  tidegate-agent export FILE                           write what there is to report, to be carried
  tidegate-agent install   [--state DIR] [--group NAME] [--self-state DIR] [--write DIR]... [--root DIR]
                         make it a service of this machine (systemd, Windows); its folder is
                         /var/lib/tidegate-agent or %ProgramData%\\tidegate-agent by default
  tidegate-agent uninstall [--root DIR]                take the service away; the folder stays
  tidegate-agent man                                   the manual page
  tidegate-agent recover --token TOKEN [--state DIR]   fetch a lost root of trust again
  tidegate-agent new-key [--state DIR]                 make a new device key with the next round

ENROLL
  --server URL          the control plane: http://host:port or https://host:port
  --also URL            another address of the same control plane; may be repeated
  --token TOKEN         a join token (or TIDEGATE_JOIN_TOKEN, which does not show in process lists)
  --product NAME        what this machine runs
  --region NAME         where it stands, unless the token says so
  --channel NAME        alpha, beta or stable, unless the token says so
  --name NAME           a name for people; the host name by default
  --label KEY=VALUE     a further fact; may be repeated
  --adopt DIR           take over what is installed in DIR ...
  --release VERSION     ... which is this release
  --platform NAME       this machine's platform by default
  --ca-file PEM         the server's certificate authority; the public ones by default
  --backend KIND        how versions are installed: directory (default), executable, image, hook,
                        agent (this program itself, started by tidegate-guard)
  --path FILE           executable: the file that people and services start
  --slot-a, --slot-b    image: files or block devices
  --boot-cmd CMD        image: tells the boot loader (booted, next, set, confirm)
  --reboot-cmd CMD      image, hook: starts the machine again, like \"systemctl reboot\"
  --hook-cmd CMD        hook: installs (install, activate, current, confirm, remove)
  --hook-timeout S      how long one call of a hook may take; 600 by default
  --health-cmd CMD      a health check that stands in for the publisher's (split at spaces)
  --health-timeout S    how long a health check may take; 30 by default
  --restart-cmd CMD     restarts what runs, after each switch (split at spaces)
  --battery-file FILE   says the charge, like \"80 mains\" or \"14 battery\"
  --clock-trusted       the clock is set by a trusted source: expiry is judged by it alone
  --ups NAME@HOST       a UPS that Network UPS Tools (upsd) speaks of
  --metered WORD        whether the link costs by the byte: auto (as NetworkManager says), yes, no
  --health-every S      how often what runs is checked outside of updates; 300 by default

ALL
  --state DIR           the agent's folder (or TIDEGATE_AGENT_STATE); by default ./tidegate-agent, or
                        the installed agent's where there is none
  -h, --help  -V, --version

What is installed is under <state>/current/tree. Exit codes: 0 ok, 1 failed, 2 usage.
";
