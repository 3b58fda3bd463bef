//! What ptxas makes of the kernels: machine code that is shipped beside the PTX, and what it costs, as a table for people and
//! a snapshot that guards against regressions.
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use kernels_gpu::spec::KernelSpec;

use crate::ptx::{Module, Target, shipped};
use crate::setup::Ptxas;
use crate::workspace::{create_folder, difference, kernels, read, target, write};
use crate::{Result, lint};

/// Kernels that may spill, and how many bytes, each with its reason. Everything else must not.
const ALLOWED_SPILLS: &[(&str, u32)] = &[];

const HEADER: &str = "\
# What each kernel costs, as `cargo xtask build-kernels` found it; `cargo xtask resources --check` compares.
# Registers, stack, spills (bytes of stores and loads) and static shared memory are ptxas's; instructions are
# PTX ones. Below each kernel: instructions that threads execute together or that order memory.
";

/// What ptxas says of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Measured {
    registers: u32,
    stack: u32,
    spill_stores: u32,
    spill_loads: u32,
    shared: u32,
}

impl Measured {
    fn spilled(&self) -> u32 {
        self.spill_stores + self.spill_loads
    }
}

/// A kernel's part of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    instructions: usize,
    counts: BTreeMap<String, usize>,
    /// Registers, stack, spilled bytes (stores and loads), static shared memory; `None` where there was no ptxas.
    measured: Option<[u32; 4]>,
}

/// The snapshot: which ptxas measured, and a row for each architecture and kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Snapshot {
    ptxas: Option<String>,
    rows: BTreeMap<(String, String), Row>,
}

fn snapshot_file() -> PathBuf {
    kernels().join("resources.txt")
}

/// What [`measure`] has assembled.
fn assembled(arch: Target) -> PathBuf {
    target().join("kernels").join(format!("{}.cubin", arch.name()))
}

fn shipped_cubin(arch: Target) -> PathBuf {
    arch.file().with_extension("cubin")
}

impl Snapshot {
    /// That of the shipped PTX, and what is wrong with it by ptxas's account.
    fn of_shipped(ptxas: Option<&Ptxas>) -> Result<(Self, Vec<String>)> {
        let mut complaints = Vec::new();
        let mut snapshot =
            Snapshot { ptxas: ptxas.map(|ptxas| ptxas.version.clone()), rows: BTreeMap::new() };
        for arch in Target::ALL {
            let measured = ptxas.map(|ptxas| measure(ptxas, arch, &mut complaints)).transpose()?;
            for entry in shipped(arch)?.entries {
                let counts = lint::counts(&entry).into_iter().map(|(name, count)| (name.to_owned(), count));
                let row = Row {
                    instructions: lint::mnemonics(&entry).count(),
                    counts: counts.collect(),
                    measured: measured.as_ref().map(|measured| {
                        let measured = measured.get(&entry.name).copied().unwrap_or_default();
                        [measured.registers, measured.stack, measured.spilled(), measured.shared]
                    }),
                };
                snapshot.rows.insert((arch.name().to_owned(), entry.name), row);
            }
        }
        Ok((snapshot, complaints))
    }

    fn text(&self) -> String {
        let mut text = HEADER.to_owned();
        let ptxas = self.ptxas.as_deref().unwrap_or("not there");
        writeln!(text, "ptxas: {ptxas}").expect("memory suffices");
        for ((arch, name), row) in &self.rows {
            write!(text, "\n{arch} {name}: {} instructions", row.instructions).expect("memory suffices");
            if let Some([registers, stack, spilled, shared]) = row.measured {
                write!(text, ", {registers} registers, {stack} stack, {spilled} spilled, {shared} shared")
                    .expect("memory suffices");
            }
            text.push('\n');
            for (mnemonic, count) in &row.counts {
                writeln!(text, "    {mnemonic} {count}").expect("memory suffices");
            }
        }
        text
    }

    fn parse(text: &str) -> Result<Self> {
        let mut snapshot = Snapshot::default();
        let mut last = None;
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let parsed = if let Some(ptxas) = line.strip_prefix("ptxas: ") {
                snapshot.ptxas = (ptxas != "not there").then(|| ptxas.to_owned());
                Some(())
            } else if line.starts_with(' ') {
                let row = last.as_ref().and_then(|key| snapshot.rows.get_mut(key));
                line.trim().split_once(' ').zip(row).and_then(|((mnemonic, count), row)| {
                    row.counts.insert(mnemonic.to_owned(), count.parse().ok()?);
                    Some(())
                })
            } else {
                parse_row(line).map(|(key, parsed)| {
                    last = Some(key.clone());
                    snapshot.rows.insert(key, parsed);
                })
            };
            parsed.ok_or_else(|| format!("resources.txt: cannot read the line {line:?}"))?;
        }
        Ok(snapshot)
    }

    /// How `now` is worse than this, or at all different where nothing may differ.
    fn regressions(&self, now: &Snapshot) -> Vec<String> {
        let mut regressions = Vec::new();
        for key in self.rows.keys().filter(|key| !now.rows.contains_key(key)) {
            regressions.push(format!("{} {}: is no longer there", key.0, key.1));
        }
        for (key, row) in &now.rows {
            let mut worse = |what: String| regressions.push(format!("{} {}: {what}", key.0, key.1));
            let Some(old) = self.rows.get(key) else {
                worse("is new".into());
                continue;
            };
            if old.instructions != row.instructions {
                worse(format!("{} instructions, now {}", old.instructions, row.instructions));
            }
            if let Some(difference) = difference(&counts_text(old), &counts_text(row)) {
                worse(format!("counts differ, {difference}"));
            }
            match (old.measured, row.measured) {
                (Some(old), Some(new)) if self.ptxas == now.ptxas => {
                    for (what, (old, new)) in
                        ["registers", "stack", "spilled", "shared"].iter().zip(old.iter().zip(&new))
                    {
                        if new > old {
                            worse(format!("{old} {what}, now {new}"));
                        }
                    }
                }
                (None, Some(_)) => worse("was never measured".into()),
                _ => {}
            }
        }
        regressions
    }
}

fn counts_text(row: &Row) -> String {
    row.counts.iter().map(|(mnemonic, count)| format!("{mnemonic} {count}\n")).collect()
}

fn parse_row(line: &str) -> Option<((String, String), Row)> {
    let (key, values) = line.split_once(": ")?;
    let (arch, name) = key.split_once(' ')?;
    let values: Option<Vec<u32>> =
        values.split(", ").map(|value| value.split(' ').next()?.parse().ok()).collect();
    let (instructions, measured) = match values?.as_slice() {
        [instructions] => (*instructions, None),
        [instructions, measured @ ..] => (*instructions, Some(measured.try_into().ok()?)),
        [] => return None,
    };
    let row = Row { instructions: instructions as usize, counts: BTreeMap::new(), measured };
    Some(((arch.to_owned(), name.to_owned()), row))
}

/// Assembles what is shipped, and writes the snapshot.
pub(crate) fn update() -> Result<()> {
    let ptxas =
        Ptxas::find()?.ok_or("no ptxas to assemble the kernels with; `cargo xtask setup` fetches one")?;
    let (snapshot, complaints) = Snapshot::of_shipped(Some(&ptxas))?;
    write(&snapshot_file(), &snapshot.text())?;
    println!("kernels-gpu/resources.txt: written");
    none_of(complaints)?;
    for arch in Target::ALL {
        let (new, shipped) = (assembled(arch), shipped_cubin(arch));
        fs::copy(&new, &shipped).map_err(|error| format!("cannot write {}: {error}", shipped.display()))?;
    }
    Ok(())
}

/// Compares with the snapshot, and the machine code with what is shipped.
pub(crate) fn check() -> Result<()> {
    let old = Snapshot::parse(&read(&snapshot_file())?)?;
    let ptxas = Ptxas::find()?;
    let (now, complaints) = Snapshot::of_shipped(ptxas.as_ref())?;
    none_of(complaints)?;
    let mut regressions = old.regressions(&now);
    let is_same_ptxas = ptxas.is_some() && now.ptxas == old.ptxas;
    for arch in Target::ALL.into_iter().filter(|_| is_same_ptxas) {
        let shipped = fs::read(shipped_cubin(arch)).unwrap_or_default();
        if fs::read(assembled(arch)).ok() != Some(shipped) {
            regressions.push(format!("{}: the shipped machine code is not that of the PTX", arch.name()));
        }
    }
    if !regressions.is_empty() {
        let hint = "if that is meant, run `cargo xtask resources` and commit the result";
        return Err(format!("kernels-gpu/resources.txt:\n  {}\n{hint}", regressions.join("\n  ")));
    }
    match ptxas {
        None => println!(
            "resources: counts as recorded; no ptxas here, so machine code, registers and spills went unchecked"
        ),
        Some(ptxas) if !is_same_ptxas => {
            println!(
                "resources: counts as recorded, nothing spills; ptxas {} is not the recorded one, so machine code went unchecked",
                ptxas.version
            );
        }
        Some(ptxas) => println!("resources: as recorded, by ptxas {}", ptxas.version),
    }
    Ok(())
}

fn none_of(complaints: Vec<String>) -> Result<()> {
    if complaints.is_empty() { Ok(()) } else { Err(format!("ptxas:\n  {}", complaints.join("\n  "))) }
}

/// Assembles a shipped module. Complains of warnings, spills and blocks that do not fit.
fn measure(ptxas: &Ptxas, arch: Target, complaints: &mut Vec<String>) -> Result<BTreeMap<String, Measured>> {
    let cubin = assembled(arch);
    cubin.parent().map_or(Ok(()), create_folder)?;
    let log = ptxas.assemble(arch.name(), &arch.file(), &cubin)?;
    let measured = parse_log(&log);
    complaints.extend(warnings(&log).into_iter().map(|line| format!("{}: {line}", arch.name())));
    for spec in arch.specs() {
        let name = format!("{} {}", arch.name(), spec.name);
        let Some(kernel) = measured.get(spec.name) else {
            complaints.push(format!("{name}: it says nothing of it"));
            continue;
        };
        let allowed = ALLOWED_SPILLS.iter().find(|row| row.0 == spec.name).map_or(0, |row| row.1);
        if kernel.spilled() > allowed || kernel.stack > allowed {
            let Measured { stack, spill_stores, spill_loads, .. } = kernel;
            complaints.push(format!(
                "{name}: {stack} bytes of stack, {spill_stores} of spill stores, {spill_loads} of loads; {allowed} allowed"
            ));
        }
        // GPUs that run sm_80 have shared memory of several sizes: there it is the registers that are to leave room.
        let shared_bytes = if arch == Target::Sm80 { 0 } else { spec.shared_bytes };
        let fit = blocks_per_sm(arch, &KernelSpec { shared_bytes, ..*spec }, kernel);
        if fit < spec.blocks_per_sm {
            complaints.push(format!("{name}: {} blocks are to fit, {fit} do", spec.blocks_per_sm));
        }
    }
    if complaints.is_empty() {
        Ok(measured)
    } else {
        Err(format!("{}:\n  {}", arch.name(), complaints.join("\n  ")))
    }
}

/// Lines of ptxas that are more than facts. It puts some losses of speed, with a number C75xx, under `info`.
fn warnings(log: &str) -> Vec<String> {
    let harmless = |line: &str| {
        let fact = ["Compiling entry", "Function properties", "Used ", "Compile time"].iter().any(|start| {
            line.strip_prefix("ptxas info")
                .is_some_and(|rest| rest.trim_start_matches([' ', ':']).starts_with(start))
        });
        fact || line.contains("bytes gmem") || line.contains("bytes stack frame") || line.trim().is_empty()
    };
    log.lines().filter(|line| !harmless(line)).map(|line| line.trim().to_owned()).collect()
}

fn parse_log(log: &str) -> BTreeMap<String, Measured> {
    let mut measured = BTreeMap::new();
    let mut name = String::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            name = rest.split('\'').next().unwrap_or_default().to_owned();
            measured.insert(name.clone(), Measured::default());
        }
        let Some(kernel) = measured.get_mut(&name) else { continue };
        let facts = line.split_once("Used ").map_or(line, |(_, facts)| facts);
        for fact in facts.split(',') {
            let Some((number, what)) = fact.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse() else { continue };
            match what {
                "registers" => kernel.registers = number,
                "bytes stack frame" => kernel.stack = number,
                "bytes spill stores" => kernel.spill_stores = number,
                "bytes spill loads" => kernel.spill_loads = number,
                "bytes smem" => kernel.shared = number,
                _ => {}
            }
        }
    }
    measured
}

/// Blocks of a kernel that are on a multiprocessor at once, by threads, registers and shared memory.
fn blocks_per_sm(arch: Target, spec: &KernelSpec, measured: &Measured) -> u32 {
    // Limits of a multiprocessor, which the two architectures share but for shared memory.
    const REGISTERS: u32 = 65_536;
    const WARPS: u32 = 64;
    const BLOCKS: u32 = 32;
    // Registers go to warps in these units, and warps to the four schedulers in turn.
    const REGISTER_UNIT: u32 = 256;
    const SCHEDULERS: u32 = 4;
    // What the system keeps of shared memory for each block.
    const SYSTEM_SHARED: u32 = 1024;
    let shared_limit = match arch {
        Target::Sm80 => 164 * 1024,
        Target::Sm90a => 228 * 1024,
    };
    let warps = spec.threads.div_ceil(32).next_multiple_of(SCHEDULERS);
    let registers = (measured.registers.max(1) * 32).next_multiple_of(REGISTER_UNIT);
    let by_registers = REGISTERS / SCHEDULERS / registers * SCHEDULERS / warps;
    let shared = (spec.shared_bytes + measured.shared + SYSTEM_SHARED).next_multiple_of(128);
    BLOCKS.min(WARPS / spec.threads.div_ceil(32)).min(by_registers).min(shared_limit / shared)
}

/// Prints what ptxas makes of each kernel.
pub(crate) fn print_table(arch: Option<Target>) -> Result<()> {
    let ptxas = Ptxas::find()?.ok_or("no ptxas: `cargo xtask setup` fetches one")?;
    let mut complaints = Vec::new();
    for arch in Target::ALL.into_iter().filter(|each| arch.is_none_or(|arch| arch == *each)) {
        let measured = measure(&ptxas, arch, &mut complaints)?;
        println!("{}", table(arch, &shipped(arch)?, &measured));
    }
    none_of(complaints)
}

fn table(arch: Target, module: &Module, measured: &BTreeMap<String, Measured>) -> String {
    let mut text = format!(
        "{:<36} {:>7} {:>5} {:>5} {:>6} {:>6} {:>7} {:>7} {:>7} {:>6}\n",
        arch.name(),
        "threads",
        "regs",
        "stack",
        "spill>",
        "spill<",
        "static",
        "dynamic",
        "PTX",
        "blocks"
    );
    for entry in &module.entries {
        let Some(spec) = arch.specs().find(|spec| spec.name == entry.name) else { continue };
        let Some(kernel) = measured.get(&entry.name) else { continue };
        writeln!(
            text,
            "{:<36} {:>7} {:>5} {:>5} {:>6} {:>6} {:>7} {:>7} {:>7} {:>6}",
            entry.name,
            spec.threads,
            kernel.registers,
            kernel.stack,
            kernel.spill_stores,
            kernel.spill_loads,
            kernel.shared,
            spec.shared_bytes,
            lint::mnemonics(entry).count(),
            blocks_per_sm(arch, spec, kernel)
        )
        .expect("memory suffices");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "ptxas info    : 0 bytes gmem\n\
        ptxas info    : Compiling entry function 'fk_a' for 'sm_90a'\n\
        ptxas info    : Function properties for fk_a\n\
        \x20   8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
        ptxas info    : Used 168 registers, used 16 barriers, 8 bytes cumulative stack size, 1024 bytes smem\n\
        ptxas info    : Compile time = 18.469 ms\n";

    fn row(instructions: usize, bars: usize, measured: Option<[u32; 4]>) -> Row {
        Row { instructions, counts: BTreeMap::from([("bar.sync".to_owned(), bars)]), measured }
    }

    fn snapshot(ptxas: &str, row: Row) -> Snapshot {
        let rows = BTreeMap::from([(("sm_80".to_owned(), "fk_a".to_owned()), row)]);
        Snapshot { ptxas: Some(ptxas.to_owned()), rows }
    }

    #[test]
    fn the_log_of_ptxas_is_understood() {
        let expected = Measured { registers: 168, stack: 8, spill_stores: 4, spill_loads: 12, shared: 1024 };
        assert_eq!(parse_log(LOG), BTreeMap::from([("fk_a".to_owned(), expected)]));
        assert_eq!(warnings(LOG), Vec::<String>::new());
        let serialised = "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async serialized";
        assert_eq!(warnings(&format!("{LOG}{serialised}\n")), [serialised]);
    }

    #[test]
    fn a_snapshot_survives_its_file() {
        let measured = snapshot("13.5", row(12, 3, Some([40, 0, 0, 16])));
        assert_eq!(Snapshot::parse(&measured.text()).unwrap(), measured);
        let mut unmeasured = snapshot("13.5", row(12, 3, None));
        unmeasured.ptxas = None;
        assert_eq!(Snapshot::parse(&unmeasured.text()).unwrap(), unmeasured);
        assert!(Snapshot::parse("sm_80 fk_a\n").is_err());
    }

    #[test]
    fn growth_is_a_regression_and_shrinking_is_not() {
        let old = snapshot("13.5", row(12, 3, Some([40, 0, 0, 0])));
        let none: Vec<String> = Vec::new();
        assert_eq!(old.regressions(&snapshot("13.5", row(12, 3, Some([38, 0, 0, 0])))), none);
        assert_eq!(old.regressions(&snapshot("13.5", row(12, 3, None))), none);
        assert_eq!(
            old.regressions(&snapshot("13.5", row(12, 3, Some([41, 0, 0, 0])))),
            ["sm_80 fk_a: 40 registers, now 41"]
        );
        // Another ptxas allocates otherwise.
        assert_eq!(old.regressions(&snapshot("14.0", row(12, 3, Some([41, 0, 0, 0])))), none);
        assert_eq!(old.regressions(&snapshot("13.5", row(11, 3, None))).len(), 1);
        assert_eq!(old.regressions(&snapshot("13.5", row(12, 2, None))).len(), 1);
        assert_eq!(old.regressions(&Snapshot::default()), ["sm_80 fk_a: is no longer there"]);
        assert_eq!(Snapshot::default().regressions(&old), ["sm_80 fk_a: is new"]);
    }

    #[test]
    fn occupancy_follows_the_scarcest_resource() {
        let blocks = |threads, registers, shared_bytes| {
            let spec =
                KernelSpec { name: "k", threads, blocks_per_sm: 1, cluster: 1, shared_bytes, min_sm: 80 };
            blocks_per_sm(Target::Sm90a, &spec, &Measured { registers, ..Measured::default() })
        };
        assert_eq!(blocks(256, 32, 0), 8);
        assert_eq!(blocks(256, 128, 0), 2);
        assert_eq!(blocks(384, 168, 0), 1);
        assert_eq!(blocks(32, 16, 0), 32);
        assert_eq!(blocks(128, 32, 100 * 1024), 2);
        assert_eq!(blocks(128, 32, 227 * 1024), 1);
    }

    #[test]
    fn the_snapshot_is_of_the_shipped_ptx() {
        let old = Snapshot::parse(&read(&snapshot_file()).unwrap()).unwrap();
        assert_eq!(old.regressions(&Snapshot::of_shipped(None).unwrap().0), Vec::<String>::new());
    }
}
