//! `keys`.

use tidegate_protocol::ProductName;

use super::Context;
use crate::args::KeysCommand;
use crate::error::CliError;
use crate::keys::Offline;
use crate::output::{line, show, table};

/// The offline keys.
pub(crate) async fn run(context: &Context, command: KeysCommand) -> Result<(), CliError> {
    match command {
        KeysCommand::Init { dir, product } => {
            let api = context.api()?;
            let mut offline = Offline::init(&dir.keys, &api).await?;
            for name in product {
                let name: ProductName = name
                    .parse()
                    .map_err(|e: tidegate_protocol::NameError| CliError::Failed(e.to_string()))?;
                let changed = offline.add_product(&name)?;
                offline.push(&api, &changed).await?;
            }
            line(&format!(
                "the keys are in {}; the server has only their public halves. Keep the folder off \
                 the server, and a copy of it somewhere safe.",
                dir.keys.display()
            ));
            Ok(())
        }
        KeysCommand::Show { dir } => {
            let rows = Offline::open(&dir.keys)?.describe()?;
            show(context.format, &rows, |rows| {
                table(["ROLE", "VERSION", "EXPIRES", "KEY"], rows.clone())
            })
        }
    }
}
