//! Text of `--help`.

pub(super) const HELP: &str = "\
tidegate-agent: keeps one machine on the release assigned to it

USAGE
  tidegate-agent enroll --server URL --token TOKEN --product NAME [options]
  tidegate-agent run     [--state DIR] [--self-state DIR]
  tidegate-agent status  [--state DIR] [--json]
  tidegate-agent doctor  [--state DIR] [--json]        diagnose problems
  tidegate-agent check-now | pause [--for 8h] | resume | rollback    [--state DIR]
                         requests from a person at the machine to the running agent
  tidegate-agent apply FOLDER [--result FILE] [--no-wait]   apply a site bundle, without a network
  tidegate-agent export FILE                           write pending reports to a file, to be carried back
  tidegate-agent install   [--state DIR] [--group NAME] [--self-state DIR] [--write DIR]... [--root DIR]
                         install it as a service (systemd, Windows); its folder is
                         /var/lib/tidegate-agent or %ProgramData%\\tidegate-agent by default
  tidegate-agent uninstall [--root DIR]                remove the service; the folder stays
  tidegate-agent man                                   the manual page
  tidegate-agent recover --token TOKEN [--state DIR]   fetch a lost root of trust again
  tidegate-agent fingerprint [--state DIR]             the fingerprint of the device's key, made if missing
  tidegate-agent new-key [--state DIR]                 rotate the device key at the next check-in

ENROLL
  --server URL          the control plane: https://host[:port][/folder]
  --also URL            another address of the same control plane; may be repeated
  --mirror-host HOST    also use mirrors of the server on this host; may be repeated
  --token TOKEN         a join token (or TIDEGATE_JOIN_TOKEN, which does not show in process lists)
  --product NAME        product that this machine runs
  --region NAME         region of the machine, unless the token sets it
  --channel NAME        alpha, beta or stable, unless the token sets it
  --name NAME           a name for people; the host name by default
  --label KEY=VALUE     label of the device; may be repeated
  --adopt DIR           take over what is installed in DIR ...
  --release VERSION     ... which is this release
  --allow-public        ... and what others may not read in DIR may become readable by everybody
  --drop-attributes     ... without its owners, setuid and like bits, extended attributes, hard links
  --platform NAME       this machine's platform by default
  --ca-file PEM         the server's certificate authority; the public ones by default
  --allow-plain-http    allow http:// beyond this machine, which shows tickets and tokens on the way
  --backend KIND        how versions are installed: directory (default), executable, image, hook,
                        agent (this program itself, started by tidegate-guard)
  --path FILE           executable: the file that people and services start
  --slot-a, --slot-b    image: files or block devices
  --boot-cmd CMD        image: talks to the boot loader (booted, next, set, confirm)
  --reboot-cmd CMD      image, hook: reboots the machine, like \"systemctl reboot\"
  --hook-cmd CMD        hook: installs (install, activate, current, confirm, remove)
  --hook-timeout S      timeout of one hook call; 600 by default
  --health-cmd CMD      health check that overrides the publisher's (split at spaces)
  --health-timeout S    timeout of a health check; 30 by default
  --restart-cmd CMD     restarts the installed software after each switch (split at spaces)
  --battery-file FILE   file with the battery charge, like \"80 mains\" or \"14 battery\"
  --clock-trusted       the clock is set by a trusted source: expiry is judged by it alone
  --ups NAME@HOST       UPS known to Network UPS Tools (upsd)
  --metered WORD        whether the link is metered: auto (as NetworkManager says), yes, no
  --health-every S      interval between health checks outside of updates; 300 by default

ALL
  --state DIR           the agent's folder (or TIDEGATE_AGENT_STATE); by default ./tidegate-agent, or
                        the installed agent's where there is none
  -h, --help  -V, --version

The installed version is in <state>/current/tree. Exit codes: 0 ok, 1 failed, 2 usage.
";
