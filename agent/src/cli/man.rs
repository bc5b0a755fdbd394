//! The manual page.

use super::help::HELP;

/// Renders the page for `man`: `tidegate-agent man | man -l -`.
pub(super) fn page() -> String {
    let mut page = format!(
        ".TH TIDEGATE-AGENT 8 \"\" \"Tidegate {}\" \"System Administration\"\n\
         .SH NAME\ntidegate-agent \\- keeps one machine on the release that its fleet is to run\n\
         .SH DESCRIPTION\n\
         The agent asks its control plane which release this machine should run, downloads it, verifies it \
         against signatures made offline, puts it to use, checks its health, and goes back by \
         itself when that fails. The way back needs neither network nor server.\n\
         .SH USE\n.nf\n",
        crate::VERSION
    );
    for line in HELP.lines().skip(2) {
        // A line that begins with a dot or a quote is a request to the formatter.
        let guard = if line.starts_with(['.', '\'']) {
            "\\&"
        } else {
            ""
        };
        page += guard;
        page += &line.replace('\\', "\\e").replace('-', "\\-");
        page.push('\n');
    }
    page += "\
        .fi\n.SH FILES\n\
        .TP\n\\fIagent.conf\\fR\nsettings that override those from enrollment\n\
        .TP\n\\fIagent.json\\fR, \\fIidentity.pem\\fR\nwhat it was told; its key\n\
        .TP\n\\fIjournal.a\\fR, \\fIjournal.b\\fR\nthe agent's state, in two copies\n\
        .TP\n\\fIdiagnosis.json\\fR\nwhat it found when it was cut off last\n\
        .TP\n\\fIcontrol.sock\\fR\nsocket for requests from root and one group\n\
        .TP\n\\fIagent.log\\fR\nlog file, when run as a Windows service\n\
        .SH SEE ALSO\nsystemctl(1), journalctl(1)\n";
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_line_of_the_help_is_taken_for_a_request() {
        let page = super::page();
        let (_, use_) = page.split_once(".nf\n").unwrap();
        let (use_, _) = use_.split_once(".fi\n").unwrap();
        assert!(use_.contains("doctor"));
        assert!(use_.lines().all(|line| !line.starts_with(['.', '\''])));
    }
}
