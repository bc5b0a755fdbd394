//! Sizes and costs of deltas beside the peers', on pairs `NAME.old`, `NAME.new` in a folder:
//!
//! ```text
//! cargo bench --manifest-path bench/Cargo.toml -- FOLDER [NAME...]
//! ```
//!
//! Peers that are programs (bsdiff, xdelta3, zstd) are left out, with a word, where they are not
//! installed; `TIDEGATE_HDIFF` names a Python that has `hdiffpatch`. Every delta is applied and
//! compared. Sizes are ratios to bsdiff 4.3; costs are CPU seconds of all threads.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use peak_alloc::PeakAlloc;
use rustix::time::ClockId;
use tidegate_delta::{Applier, DeltaOptions, Encoding, Limits, ReadAt, make_bsdiff, make_delta};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

type Failed = Box<dyn std::error::Error>;

/// Result of one tool on one pair.
struct Row {
    tool: &'static str,
    bytes: u64,
    create_s: f64,
    apply_s: f64,
    /// Peak of our own allocations while applying, in MiB.
    apply_mib: Option<f64>,
    /// Peak of our own allocations while creating, as a multiple of the old image.
    create_times_old: Option<f64>,
}

fn cpu(clock: ClockId) -> f64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU seconds that this process takes for something.
fn own<T>(work: impl FnOnce() -> Result<T, Failed>) -> Result<(T, f64), Failed> {
    let before = cpu(ClockId::ProcessCPUTime);
    let done = work()?;
    Ok((done, cpu(ClockId::ProcessCPUTime) - before))
}

/// Runs a program to its end: CPU seconds of it, as `bash` counts them; `None` if it is not here.
fn program(line: &str) -> Result<Option<f64>, Failed> {
    let script = format!("TIMEFORMAT='%U %S'; time {{ {line} >/dev/null 2>&1; }}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .output()?;
    if output.status.code() == Some(127) {
        return Ok(None);
    }
    if !output.status.success() {
        return Err(format!("{line}: {}", output.status).into());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = text.trim().lines().last().unwrap_or_default();
    Ok(Some(
        last.split(' ').filter_map(|n| n.parse::<f64>().ok()).sum(),
    ))
}

/// A peer that is a program: how it creates `P` from `O` and `N`, and applies it to `M`.
const PROGRAMS: [(&str, &str, &str); 4] = [
    ("bsdiff 4.3", "bsdiff O N P", "bspatch O M P"),
    (
        "xdelta3 -9",
        "xdelta3 -f -e -9 -B 268435456 -s O N P",
        "xdelta3 -f -d -B 268435456 -s O P M",
    ),
    (
        "zstd -19",
        "zstd -q -f -19 --long=31 --patch-from=O N -o P",
        "zstd -q -f -d --long=31 --patch-from=O P -o M",
    ),
    (
        "zstd -22",
        "zstd -q -f --ultra -22 --long=31 --patch-from=O N -o P",
        "zstd -q -f -d --long=31 --patch-from=O P -o M",
    ),
];

const HDIFF: &str = "import sys,hdiffpatch as h
o,n,p=[open(a,'rb').read() if i<2 else a for i,a in enumerate(sys.argv[1:4])]
open(p,'wb').write(h.diff(o,n,compression=h.COMPRESSION_LZMA2,validate=False))";
const HPATCH: &str = "import sys,hdiffpatch as h
o,p=[open(a,'rb').read() for a in sys.argv[1:3]]
open(sys.argv[3],'wb').write(h.apply(o,p))";

fn programs(old: &Path, new: &Path, dir: &Path, rows: &mut Vec<Row>) -> Result<(), Failed> {
    let (patch, made) = (dir.join("patch"), dir.join("made"));
    let mut list: Vec<(&'static str, String, String)> = PROGRAMS
        .iter()
        .map(|(tool, create, apply)| (*tool, (*create).to_owned(), (*apply).to_owned()))
        .collect();
    if let Ok(python) = std::env::var("TIDEGATE_HDIFF") {
        fs::write(dir.join("hdiff.py"), HDIFF)?;
        fs::write(dir.join("hpatch.py"), HPATCH)?;
        let at = |name: &str| dir.join(name).display().to_string();
        list.push((
            "hdiffpatch",
            format!("{python} {} O N P", at("hdiff.py")),
            format!("{python} {} O P M", at("hpatch.py")),
        ));
    }
    for (tool, create, apply) in list {
        let fill = |line: &str| {
            line.split(' ')
                .map(|word| match word {
                    "O" => old.display().to_string(),
                    "N" => new.display().to_string(),
                    "P" => patch.display().to_string(),
                    "M" => made.display().to_string(),
                    "--patch-from=O" => format!("--patch-from={}", old.display()),
                    word => word.to_owned(),
                })
                .collect::<Vec<_>>()
                .join(" ")
        };
        let Some(create_s) = program(&fill(&create))? else {
            eprintln!("left out: {tool} is not installed");
            continue;
        };
        let apply_s = program(&fill(&apply))?.unwrap_or(0.0);
        if fs::read(&made)? != fs::read(new)? {
            return Err(format!("{tool} made another image").into());
        }
        rows.push(Row {
            tool,
            bytes: fs::metadata(&patch)?.len(),
            create_s,
            apply_s,
            apply_mib: None,
            create_times_old: None,
        });
    }
    Ok(())
}

fn crates(old: &[u8], new: &[u8], rows: &mut Vec<Row>) -> Result<(), Failed> {
    let plain = |tool, bytes: u64, create_s, apply_s| Row {
        tool,
        bytes,
        create_s,
        apply_s,
        apply_mib: None,
        create_times_old: None,
    };
    let (patch, create_s) = own(|| {
        let mut patch = Vec::new();
        qbsdiff::Bsdiff::new(old, new).compare(io::Cursor::new(&mut patch))?;
        Ok(patch)
    })?;
    let (made, apply_s) = own(|| {
        let mut made = Vec::new();
        qbsdiff::Bspatch::new(&patch)?.apply(old, io::Cursor::new(&mut made))?;
        Ok(made)
    })?;
    assert!(made == new, "qbsdiff made another image");
    rows.push(plain("qbsdiff", patch.len() as u64, create_s, apply_s));
    let (patch, create_s) = own(|| {
        let mut raw = Vec::new();
        bidiff::simple_diff(old, new, &mut raw)?;
        Ok(zstd::bulk::compress(&raw, 19)?)
    })?;
    rows.push(plain(
        "bidiff + zstd -19 (not applied)",
        patch.len() as u64,
        create_s,
        0.0,
    ));
    let ((manifest, patch), create_s) = own(|| {
        let mut patch = Vec::new();
        let manifest = make_bsdiff(old, new, &mut patch)?;
        Ok((manifest, patch))
    })?;
    let (made, apply_s) = own(|| apply(old, &manifest, &patch, &Limits::default()))?;
    assert!(made == new, "bsdiff + zstd made another image");
    rows.push(plain(
        "ours: bsdiff + zstd",
        patch.len() as u64,
        create_s,
        apply_s,
    ));
    Ok(())
}

fn apply(
    old: &[u8],
    manifest: &tidegate_delta::Manifest,
    payload: &[u8],
    limits: &Limits,
) -> Result<Vec<u8>, Failed> {
    let made = Vec::with_capacity(usize::try_from(manifest.to.length)?);
    let scratch = tempfile::tempfile()?;
    let mut applier =
        Applier::new(manifest, Some(&old as &dyn ReadAt), made, limits)?.with_scratch(&scratch);
    let mut rest = payload;
    for chunk in &manifest.chunks {
        let (bytes, behind) = rest.split_at(chunk.length as usize);
        applier.push_chunk(bytes)?;
        rest = behind;
    }
    Ok(applier.finish()?)
}

/// Applies as a device does, from files, and tells the peak of its allocations, in MiB.
fn peak(
    old: &[u8],
    manifest: &tidegate_delta::Manifest,
    payload: &[u8],
    limits: &Limits,
) -> Result<f64, Failed> {
    let mut base = tempfile::tempfile()?;
    base.write_all(old)?;
    let mut file = tempfile::tempfile()?;
    file.write_all(payload)?;
    io::Seek::rewind(&mut file)?;
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let scratch = tempfile::tempfile()?;
    let mut applier = Applier::new(manifest, Some(&base as &dyn ReadAt), io::sink(), limits)?
        .with_scratch(&scratch);
    let mut buffer = Vec::new();
    for chunk in &manifest.chunks {
        buffer.resize(chunk.length as usize, 0);
        file.read_exact(&mut buffer)?;
        applier.push_chunk(&buffer)?;
    }
    applier.finish()?;
    Ok((MEMORY.peak_usage() - before) as f64 / 1_048_576.0)
}

fn ours(old: &[u8], new: &[u8], rows: &mut Vec<Row>) -> Result<(), Failed> {
    let large = 140 << 20;
    for (tool, encoding, memory) in [
        ("quick", Encoding::Quick, Limits::MEMORY),
        ("dense", Encoding::Dense, Limits::MEMORY),
        ("dense, large tables", Encoding::Dense, large),
    ] {
        let options = DeltaOptions {
            memory,
            ..DeltaOptions::new(encoding)
        };
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let ((manifest, payload), create_s) = own(|| {
            let mut payload = Vec::new();
            let manifest = make_delta(old, new, &mut payload, &options)?;
            Ok((manifest, payload))
        })?;
        let create_peak = (MEMORY.peak_usage() - before) as f64;
        let limits = Limits {
            max_memory: memory,
            ..Limits::default()
        };
        let (made, apply_s) = own(|| apply(old, &manifest, &payload, &limits))?;
        assert!(made == new, "{tool} made another image");
        rows.push(Row {
            tool,
            bytes: payload.len() as u64,
            create_s,
            apply_s,
            apply_mib: Some(peak(old, &manifest, &payload, &limits)?),
            // Both images are in memory beside.
            create_times_old: Some(
                (create_peak + (old.len() + new.len()) as f64) / old.len() as f64,
            ),
        });
    }
    Ok(())
}

fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let Some(folder) = arguments.next() else {
        eprintln!("usage: cargo bench --manifest-path bench/Cargo.toml -- FOLDER [NAME...]");
        return Ok(());
    };
    let folder = fs::canonicalize(folder)?;
    let mut names: Vec<String> = arguments.collect();
    if names.is_empty() {
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(".old").map(str::to_owned));
        }
        names.sort();
    }
    let mut sums: Vec<(&'static str, f64, u32)> = Vec::new();
    for name in &names {
        let (old_path, new_path) = (
            folder.join(format!("{name}.old")),
            folder.join(format!("{name}.new")),
        );
        let (old, new) = (fs::read(&old_path)?, fs::read(&new_path)?);
        let begun = Instant::now();
        let dir = tempfile::tempdir()?;
        let mut rows = Vec::new();
        programs(&old_path, &new_path, dir.path(), &mut rows)?;
        crates(&old, &new, &mut rows)?;
        ours(&old, &new, &mut rows)?;
        let base = rows
            .iter()
            .find(|r| r.tool == "bsdiff 4.3")
            .map_or(new.len() as u64, |r| r.bytes);
        println!(
            "\n{name}: {:.1} MB, {} s in all",
            new.len() as f64 / 1e6,
            begun.elapsed().as_secs()
        );
        println!(
            "| tool | bytes | ratio | create, CPU s | times old | apply, CPU s | MB/s | MiB |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
        for row in &rows {
            let ratio = row.bytes as f64 / base as f64;
            let optional = |n: Option<f64>| n.map_or(String::new(), |n| format!("{n:.1}"));
            let rate = if row.apply_s > 0.0 {
                format!("{:.1}", new.len() as f64 / 1e6 / row.apply_s)
            } else {
                String::new()
            };
            println!(
                "| {} | {} | {ratio:.3} | {:.2} | {} | {:.2} | {rate} | {} |",
                row.tool,
                row.bytes,
                row.create_s,
                optional(row.create_times_old),
                row.apply_s,
                optional(row.apply_mib),
            );
            match sums.iter_mut().find(|s| s.0 == row.tool) {
                Some(sum) => {
                    sum.1 += ratio.ln();
                    sum.2 += 1;
                }
                None => sums.push((row.tool, ratio.ln(), 1)),
            }
        }
    }
    println!("\nGeometric mean of the ratios over {} pairs", names.len());
    println!("| tool | ratio |\n| --- | --- |");
    for (tool, sum, count) in sums {
        println!("| {tool} | {:.3} |", (sum / f64::from(count)).exp());
    }
    Ok(())
}
