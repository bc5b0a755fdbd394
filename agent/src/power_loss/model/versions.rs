//! Versions of the model, and the payloads for each.

use std::collections::BTreeMap;

use tidegate_delta::{DeltaOptions, Encoding, Manifest, make_delta, make_full};
use tidegate_machine::fsm::Installed;
use tidegate_protocol::{Image, Payload};

use super::VERSIONS;
pub(super) use crate::power_loss::versions::image_of;

/// All versions, and the payloads for each.
pub(super) struct Versions {
    pub(super) images: Vec<Vec<u8>>,
    pub(super) full: Vec<(Manifest, Vec<u8>)>,
    pub(super) deltas: BTreeMap<(usize, usize), (Manifest, Vec<u8>)>,
    /// Whether each of them is healthy.
    pub(super) healthy: [bool; VERSIONS],
}

impl Versions {
    pub(super) fn new() -> Self {
        let text = |seed: u32| {
            let line = |i: u32| {
                format!(
                    "{:x}\n",
                    i.wrapping_mul(seed * 104_729 + 2_654_435_761) >> 9
                )
            };
            (0..24).map(line).collect::<String>().into_bytes()
        };
        let images: Vec<Vec<u8>> = (0..VERSIONS)
            .map(|n| text(u32::try_from(n).unwrap()))
            .collect();
        let full = images
            .iter()
            .map(|image| {
                let mut payload = Vec::new();
                let manifest = make_full(&mut &image[..], &mut payload, 100).unwrap();
                (manifest, payload)
            })
            .collect();
        let options = DeltaOptions {
            chunk: 256,
            frame: 4_096,
            ..DeltaOptions::new(Encoding::Quick)
        };
        let mut deltas = BTreeMap::new();
        for from in 0..VERSIONS {
            for to in 0..VERSIONS {
                let mut payload = Vec::new();
                let manifest =
                    make_delta(&images[from], &images[to], &mut payload, &options).unwrap();
                deltas.insert((from, to), (manifest, payload));
            }
        }
        Self {
            images,
            full,
            deltas,
            healthy: std::array::from_fn(|n| n % 5 != 2 && n % 5 != 4),
        }
    }

    pub(super) fn installed(&self, n: usize) -> Installed {
        Installed {
            release: format!("1.{n}.0").parse().unwrap(),
            image: image_of(&self.images[n]),
            format: "raw".into(),
            health: None,
        }
    }

    pub(super) fn which(&self, image: Image) -> usize {
        let same = |bytes: &Vec<u8>| image_of(bytes) == image;
        self.images.iter().position(same).unwrap()
    }

    /// The payloads that a device on `from` is offered.
    pub(super) fn payloads(&self, from: usize, to: usize) -> Vec<Payload> {
        [&self.deltas[&(from, to)], &self.full[to]]
            .map(|(manifest, payload)| Payload {
                manifest: tidegate_delta::sha256(&manifest.to_bytes().unwrap()),
                manifest_length: manifest.to_bytes().unwrap().len() as u64,
                from: manifest.from.map(|image| image.sha256),
                bytes: payload.len() as u64,
            })
            .to_vec()
    }

    pub(super) fn behind(&self, payload: &Payload) -> &(Manifest, Vec<u8>) {
        self.full
            .iter()
            .chain(self.deltas.values())
            .find(|(m, _)| tidegate_delta::sha256(&m.to_bytes().unwrap()) == payload.manifest)
            .unwrap()
    }
}
