//! A delta as shown.

use serde::{Deserialize, Serialize};
use tidegate_delta::{Encoding, Image, Limits, Manifest};

use crate::output::bytes;

/// Facts about a delta, as shown.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct View {
    encoding: Encoding,
    from: Option<Image>,
    to: Image,
    payload: Image,
    chunks: usize,
    memory: u64,
    work: u64,
    scratch: u64,
}

pub(super) fn view(manifest: &Manifest) -> View {
    View {
        encoding: manifest.encoding,
        from: manifest.from,
        to: manifest.to,
        payload: manifest.payload,
        chunks: manifest.chunks.len(),
        memory: manifest.memory,
        work: manifest.work,
        scratch: manifest.scratch,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number for people")]
fn millions(number: u64) -> f64 {
    number as f64 / 1e6
}

pub(super) fn describe(view: &View) -> String {
    let image = |image: &Image| format!("{} {}", image.sha256, bytes(image.length));
    let from = view.from.as_ref().map_or("nothing".into(), image);
    let part = if view.to.length == 0 {
        0.0
    } else {
        // For people: two digits are enough.
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let part = view.payload.length as f64 * 100.0 / view.to.length as f64;
        part
    };
    let scratch = match view.scratch {
        0 => String::new(),
        file => format!(", and a file of {} for unpacked images", bytes(file)),
    };
    format!(
        "encoding  {}\nfrom      {from}\nto        {}\npayload   {} in {}, {part:.2} % of the image\nmemory    {} to apply{scratch}\nwork      {:.1} million model-coded bits",
        view.encoding,
        image(&view.to),
        bytes(view.payload.length),
        match view.chunks {
            1 => "1 chunk".to_owned(),
            chunks => format!("{chunks} chunks"),
        },
        bytes(view.memory + u64::from(Limits::DELTA_CHUNK)),
        millions(view.work),
    )
}
