//! Errors of the command line: message, next step, exit code.

use std::fmt::Display;
use std::str::FromStr;

use tidegate_protocol::{Problem, ProblemCode, bounded};

/// Errors of a command. Their exit codes are documented in `docs/reference/cli.md`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Something failed.
    #[error("{0}")]
    Failed(String),
    /// The value of an argument is not valid.
    #[error("{0}")]
    Usage(String),
    /// Something failed, with a hint at what to do next.
    #[error("{0}")]
    Hinted(String, String),
    /// The command does not fit the present state, with a hint at what to do next.
    #[error("{0}")]
    State(String, String),
    /// The server refused.
    #[error("{}", describe(.0))]
    Problem(Box<Problem>),
    /// The server cannot be reached.
    #[error("cannot reach {server}: {cause}")]
    Unreachable {
        /// Its address.
        server: String,
        /// The cause.
        cause: String,
    },
    /// The rollout failed or was halted.
    #[error("{0}")]
    RolloutFailed(String),
    /// Time ran out.
    #[error("{0}")]
    Timeout(String),
    /// A rollback is over, and some of the devices were left behind.
    #[error("{0}")]
    Partly(String),
    /// The rollout is complete, and some of its devices failed or were left out.
    #[error("{0}")]
    LeftOut(String),
    /// The rollout is complete and has touched no device.
    #[error("{0}")]
    NothingToDo(String),
    /// A person or a parent process ended it.
    #[error("interrupted")]
    Interrupted,
}

fn describe(problem: &Problem) -> String {
    let id = problem
        .request_id
        .as_ref()
        .map(|id| format!(" [request {id}]"))
        .unwrap_or_default();
    // The server's words: each is one line, or it could pass for one of ours.
    let [title, detail, id] = [&problem.title, &problem.detail, &id].map(|t| bounded(t));
    format!("{title}: {detail} ({}){id}", problem.code)
}

/// Names the file of an error.
pub(crate) fn at(path: &std::path::Path) -> impl Fn(std::io::Error) -> CliError + '_ {
    move |e| CliError::Failed(format!("{}: {e}", path.display()))
}

impl CliError {
    /// Builds a failure from an error and its causes.
    pub(crate) fn failed(context: &str, error: &dyn std::error::Error) -> Self {
        let text = format!("{context}: {}", tidegate_protocol::error_chain(error));
        Self::Failed(text)
    }

    /// Next step for the person, if there is one.
    pub(crate) fn next_step(&self) -> Option<String> {
        match self {
            Self::Hinted(_, next) | Self::State(_, next) => Some(next.clone()),
            Self::Unreachable { cause, .. } if cause.contains("certificate") => Some(
                "pass the server's certificate authority with --ca-file; check this machine's clock"
                    .into(),
            ),
            Self::Unreachable { .. } => Some(
                "start it with `tidegate serve`, or name another one with --server or `tidegate login`"
                    .into(),
            ),
            Self::Problem(problem) => match problem.code {
                ProblemCode::Unauthenticated => {
                    Some("`tidegate login URL --token-file FILE`, or set TIDEGATE_TOKEN".into())
                }
                ProblemCode::Forbidden => Some("ask an admin for a token with another role".into()),
                ProblemCode::PreconditionFailed => Some("it has changed meanwhile: read it again, then repeat the command".into()),
                ProblemCode::Unavailable | ProblemCode::Overloaded => Some("try again shortly".into()),
                _ => None,
            },
            Self::Failed(_)
            | Self::Usage(_)
            | Self::RolloutFailed(_)
            | Self::Timeout(_)
            | Self::Partly(_)
            | Self::LeftOut(_)
            | Self::Interrupted => None,
            Self::NothingToDo(_) => Some(
                "tidegate rollout why ID says why no device needs it; a region or label may be misspelled"
                    .into(),
            ),
        }
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Hinted(..) | Self::Unreachable { .. } => 1,
            Self::Usage(_) => 2,
            Self::RolloutFailed(_) => 3,
            Self::State(..) => 5,
            Self::Timeout(_) => 6,
            Self::LeftOut(_) => 7,
            Self::Partly(_) => 8,
            Self::NothingToDo(_) => 9,
            Self::Interrupted => 130,
            Self::Problem(problem) => match problem.code {
                ProblemCode::Unauthenticated | ProblemCode::Forbidden => 4,
                ProblemCode::PreconditionFailed
                | ProblemCode::IllegalTransition
                | ProblemCode::Conflict => 5,
                _ => 1,
            },
        }
    }
}

/// Parses the value of an argument.
pub(crate) fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, CliError> {
    text.parse()
        .map_err(|e: T::Err| CliError::Usage(e.to_string()))
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_as_documented() {
        let problem = |code| CliError::Problem(Box::new(Problem::new(code, "x")));
        let documented = include_str!("../../docs/reference/cli.md");
        for (error, code) in [
            (problem(ProblemCode::NotFound), 1),
            (CliError::Usage(String::new()), 2),
            (CliError::RolloutFailed(String::new()), 3),
            (problem(ProblemCode::Forbidden), 4),
            (problem(ProblemCode::IllegalTransition), 5),
            (CliError::State(String::new(), String::new()), 5),
            (CliError::Timeout(String::new()), 6),
            (CliError::LeftOut(String::new()), 7),
            (CliError::Partly(String::new()), 8),
            (CliError::NothingToDo(String::new()), 9),
            (CliError::Interrupted, 130),
        ] {
            assert_eq!(error.exit_code(), code, "{error:?}");
            assert!(documented.contains(&format!("\n| {code} | ")), "{code}");
        }
    }
}
