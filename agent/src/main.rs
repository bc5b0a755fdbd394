//! The `tidegate-agent` binary.

fn main() -> std::process::ExitCode {
    if tidegate_apply::is_decoder(std::env::args_os().skip(1)) {
        return tidegate_apply::decode();
    }
    let code = tidegate_agent::main(std::env::args_os().skip(1));
    std::process::ExitCode::from(code as u8)
}
