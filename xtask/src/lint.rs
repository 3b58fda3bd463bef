//! What PTX must not contain.
//!
//! rustc and LLVM accept all of this; the damage shows on the GPU, as wrong results or as lost speed.
use std::collections::BTreeMap;

use crate::ptx::{Entry, Module};

/// Instructions that threads execute together, or that order memory between them. Duplicating one into two
/// arms of a branch is undefined behaviour even where tests pass, and LLVM has done it; so their numbers are
/// pinned, by mnemonic.
const COUNTED: &[&str] = &[
    "activemask",
    "bar",
    "barrier",
    "clusterlaunchcontrol",
    "cp",
    "elect",
    "fence",
    "griddepcontrol",
    "ldmatrix",
    "match",
    "mbarrier",
    "membar",
    "mma",
    "redux",
    "setmaxnreg",
    "shfl",
    "stmatrix",
    "tensormap",
    "vote",
    "wgmma",
    "wmma",
];

/// Instructions that take an address, and lose speed when they are not told its space.
const ADDRESSED: &[&str] = &["atom", "cp", "ld", "ldu", "red", "st"];

const SPACES: &[&str] = &["global", "param", "shared", "shared::cta", "shared::cluster", "const"];

const DYNAMIC_SHARED: &str = ".extern .shared .align 1024 .b8 dynamic_shared[];";

/// The mnemonics of an entry's instructions, in order.
pub(crate) fn mnemonics(entry: &Entry) -> impl Iterator<Item = &str> {
    entry.body.split([';', '{', '}', '\n']).filter_map(|statement| {
        let mut words =
            statement.split_whitespace().skip_while(|word| word.starts_with('@') || word.ends_with(':'));
        let operand =
            |word: &&str| word.ends_with(',') || !word.starts_with(|first: char| first.is_ascii_lowercase());
        words.next().filter(|word| !operand(word))
    })
}

/// How often an entry has each of the instructions whose number is pinned.
pub(crate) fn counts(entry: &Entry) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for mnemonic in mnemonics(entry) {
        if COUNTED.contains(&stem(mnemonic)) {
            *counts.entry(mnemonic).or_insert(0) += 1;
        }
    }
    counts
}

fn stem(mnemonic: &str) -> &str {
    mnemonic.split('.').next().unwrap_or_default()
}

/// Everything that is wrong with a module, one line each.
pub(crate) fn complaints(module: &Module) -> Vec<String> {
    let mut complaints = Vec::new();
    for line in module.head.lines() {
        if let Some(complaint) = about_declaration(line) {
            complaints.push(format!("{complaint}: {}", line.trim()));
        }
    }
    for entry in &module.entries {
        let mut found = BTreeMap::new();
        if entry.body.contains(".local ") {
            found.insert(".local", ("memory of a thread's own: an index is not a constant".to_owned(), 1));
        }
        for mnemonic in mnemonics(entry) {
            if let Some(complaint) = about_instruction(mnemonic) {
                found.entry(mnemonic).or_insert((complaint, 0)).1 += 1;
            }
        }
        for (what, (complaint, times)) in found {
            complaints.push(format!("{}: {what}, {times} times: {complaint}", entry.name));
        }
        if !entry.directives.contains(".maxntid") {
            complaints.push(format!("{}: no launch bounds", entry.name));
        }
    }
    complaints
}

fn about_declaration(line: &str) -> Option<&'static str> {
    let known = [".version ", ".target ", ".address_size "].iter().any(|start| line.starts_with(start));
    if known || line.trim() == DYNAMIC_SHARED || line.starts_with(".shared ") {
        return None;
    }
    Some(if line.contains(".func") {
        "a function that is not inlined"
    } else if line.contains(".extern") {
        "nothing is linked into the module, so this stays undefined"
    } else if line.contains(".global") || line.contains(".const") {
        "data of the module, as the texts of panics are"
    } else {
        "unexpected at module level"
    })
}

fn about_instruction(mnemonic: &str) -> Option<String> {
    let parts: Vec<_> = mnemonic.split('.').collect();
    let text = match parts[0] {
        "call" => "a function that is not inlined, or a panic",
        "trap" => "a panic or unreachable code",
        "exit" | "brkpt" => "ends or stops threads out of order",
        _ if parts.contains(&"local") => "memory of a thread's own: an index is not a constant",
        stem if ADDRESSED.contains(&stem) && takes_address(&parts) => {
            "an address without its space: a pointer that is not a kernel's own argument"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

fn takes_address(parts: &[&str]) -> bool {
    // Of the asynchronous copies, those that only wait or commit have no address.
    let waits =
        parts[0] == "cp" && parts.iter().any(|part| part.starts_with("wait") || part.starts_with("commit"));
    !waits && !parts.iter().any(|part| SPACES.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptx::{Target, shipped};

    fn module(body: &str) -> Module {
        Module::parse(&format!(".version 8.0\n.visible .entry k()\n.maxntid 1, 1, 1\n{{\n{body}\n}}\n"))
            .unwrap()
    }

    fn one_complaint(body: &str) -> String {
        let complaints = complaints(&module(body));
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        complaints[0].clone()
    }

    #[test]
    fn good_code_passes() {
        let good = "\t.reg .b32 %r<3>;\n$L_1:\n\tld.param.b64 %rd1, [k_param_0];\n\t@%p1 ld.global.nc.v4.u32 {%r1}, [%rd1];\n\
            \t{ .reg .pred p; setp.ne.b32 p, %r1, 0; @p bra $L_1; }\n\tatom.relaxed.gpu.global.add.u32 %r1, [%rd1], 1;\n\
            \tcp.async.commit_group;\n\tcp.async.bulk.wait_group 0;\n\tst.shared::cta.b32 [%r1], %r2;\n\tret;";
        assert_eq!(complaints(&module(good)), Vec::<String>::new());
    }

    #[test]
    fn bad_code_is_named() {
        assert!(one_complaint("\t@%p1 ld.b32 %r1, [%rd1];").contains("ld.b32, 1 times"));
        assert!(one_complaint("\tst.volatile.v2.b32 [%rd1], {%r1, %r2};").contains("without its space"));
        assert!(one_complaint("\tatom.add.u32 %r1, [%rd1], 1;").contains("without its space"));
        assert!(one_complaint("\tcall.uni panic, ();").contains("not inlined"));
        assert!(one_complaint("\t{ trap; }").contains("panic"));
        assert!(one_complaint("\tld.local.b32 %r1, [%SP];").contains("thread's own"));
        assert!(one_complaint("\t.local .align 8 .b8 depot0[256];").contains("thread's own"));
    }

    #[test]
    fn bad_modules_are_named() {
        for line in [".extern .func panic ( )", ".func f()", ".global .align 1 .b8 text[5] = {1};", ".weak x"]
        {
            let text = format!(".version 8.0\n{DYNAMIC_SHARED}\n.shared .align 4 .b8 tile[16];\n{line}\n");
            assert_eq!(complaints(&Module::parse(&text).unwrap()).len(), 1, "{line}");
        }
        let unbounded = Module::parse(".visible .entry k()\n{\n\tret;\n}\n").unwrap();
        assert_eq!(complaints(&unbounded), ["k: no launch bounds"]);
    }

    #[test]
    fn instructions_are_counted_by_mnemonic() {
        let module = module(
            "\t@%p1 bar.sync 0;\n\t{ bar.sync 1; mma.sync.m16 {%r1,\n\t%r2}, {%r3}; }\n\tadd.s32 %r1, %r1, 1;",
        );
        assert_eq!(counts(&module.entries[0]), BTreeMap::from([("bar.sync", 2), ("mma.sync.m16", 1)]));
    }

    #[test]
    fn shipped_ptx_is_clean_and_complete() {
        for arch in Target::ALL {
            let module = shipped(arch).unwrap();
            assert_eq!(complaints(&module), Vec::<String>::new());
            let mut expected: Vec<_> = arch.specs().map(|spec| spec.name).collect();
            expected.sort_unstable();
            let found: Vec<_> = module.entries.iter().map(|entry| entry.name.as_str()).collect();
            assert_eq!(found, expected);
        }
    }
}
