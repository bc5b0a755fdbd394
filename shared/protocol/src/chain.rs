//! Error messages for people.

/// An error with its causes on one line, separated by colons.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        // Some libraries already put the cause into their own message.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no entry")]
    struct Cause;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("the journal")]
        Silent(#[source] Cause),
        #[error("the journal: {0}")]
        Telling(#[source] Cause),
    }

    #[test]
    fn a_cause_is_said_once_whoever_says_it() {
        assert_eq!(error_chain(&Outer::Silent(Cause)), "the journal: no entry");
        assert_eq!(error_chain(&Outer::Telling(Cause)), "the journal: no entry");
    }
}
