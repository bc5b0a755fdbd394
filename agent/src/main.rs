//! The `tidegate-agent` binary.

fn main() -> std::process::ExitCode {
    let code = tidegate_agent::main(std::env::args_os().skip(1));
    std::process::ExitCode::from(code as u8)
}
