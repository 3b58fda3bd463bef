//! Building the PTX that is shipped.
//!
//! rustc's output becomes a file that a host can cut by kernel: module-level text, then the entries in order
//! of their names, each after a line `// entry NAME`. What stock rustc cannot say, the launch bounds, is added
//! from the kernel's [`KernelSpec`].
use std::fmt::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use cuda_builder::{Arch, CudaBuilder};
use kernels_gpu::spec::KernelSpec;

use crate::workspace::{create_folder, difference, kernels, read, root, target, write};
use crate::{Result, lint, resources, setup};

/// An architecture that PTX is shipped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Ampere and everything later.
    #[value(name = "sm_80")]
    Sm80,
    /// Hopper.
    #[value(name = "sm_90a")]
    Sm90a,
}

impl Target {
    pub(crate) const ALL: [Target; 2] = [Target::Sm80, Target::Sm90a];

    pub(crate) fn arch(self) -> Arch {
        match self {
            Target::Sm80 => Arch::Sm80,
            Target::Sm90a => Arch::Sm90a,
        }
    }

    /// Such as `sm_80`.
    pub(crate) fn name(self) -> &'static str {
        self.arch().target_cpu()
    }

    /// The shipped file.
    pub(crate) fn file(self) -> PathBuf {
        kernels().join("ptx").join(format!("{}.ptx", self.name()))
    }

    /// The kernels that the shipped file must have.
    pub(crate) fn specs(self) -> impl Iterator<Item = &'static KernelSpec> {
        kernels_gpu::kernels::ALL.iter().filter(move |spec| spec.min_sm <= self.arch().compute_capability())
    }
}

/// A PTX module in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// Everything outside entries: version, target, declarations, and whatever should not be there.
    pub(crate) head: String,
    /// The entries, by name.
    pub(crate) entries: Vec<Entry>,
}

/// A kernel in PTX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// From `.visible .entry` to the closing parenthesis.
    pub(crate) signature: String,
    /// Performance directives, one a line.
    pub(crate) directives: String,
    /// From `{` to `}`.
    pub(crate) body: String,
}

impl Module {
    /// Takes PTX apart; comments and empty lines are dropped.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut module = Module { head: String::new(), entries: Vec::new() };
        let mut lines = text.lines().map(without_comment).filter(|line| !line.trim().is_empty());
        while let Some(line) = lines.next() {
            let Some(name) = entry_name(line) else {
                module.head += line;
                module.head.push('\n');
                continue;
            };
            let mut entry =
                Entry { name, signature: String::new(), directives: String::new(), body: String::new() };
            let mut part = &mut entry.signature;
            let mut depth = 0;
            let mut line = Some(line);
            loop {
                let text = line.ok_or_else(|| format!("the PTX ends inside {}", entry.name))?;
                if depth == 0 && text.starts_with('{') {
                    part = &mut entry.body;
                }
                *part += text;
                part.push('\n');
                depth += text.matches('{').count();
                // A brace too many cannot be: the assembler counts them as well.
                depth = depth.saturating_sub(text.matches('}').count());
                if depth == 0 && text.starts_with('}') {
                    break;
                }
                if depth == 0 && (text.starts_with(')') || text.ends_with("()")) {
                    part = &mut entry.directives;
                }
                line = lines.next();
            }
            module.entries.push(entry);
        }
        module.entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(module)
    }

    /// Gives each entry its launch bounds. The entries must be those of `specs`, no more and no fewer.
    fn with_launch_bounds(mut self, specs: &[&KernelSpec]) -> Result<Self> {
        let mut wrong = Vec::new();
        for spec in specs {
            if !self.entries.iter().any(|entry| entry.name == spec.name) {
                wrong.push(format!("{} is missing", spec.name));
            }
        }
        for entry in &mut self.entries {
            match specs.iter().find(|spec| spec.name == entry.name) {
                Some(spec) => entry.directives += &launch_bounds(spec),
                None => wrong.push(format!("{} is not in the table of kernels", entry.name)),
            }
        }
        if wrong.is_empty() {
            Ok(self)
        } else {
            Err(format!("entries of the PTX:\n  {}", wrong.join("\n  ")))
        }
    }

    /// The shipped form.
    pub(crate) fn text(&self) -> String {
        let mut text =
            String::from("// Generated from the kernels' sources by `cargo xtask build-kernels`.\n");
        text += &self.head;
        for Entry { name, signature, directives, body } in &self.entries {
            let body = local_labels(body);
            write!(text, "\n// entry {name}\n{signature}{directives}{body}").expect("memory suffices");
        }
        text
    }
}

fn without_comment(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code).trim_end()
}

fn entry_name(line: &str) -> Option<String> {
    let rest = line.strip_prefix(".visible .entry ").or_else(|| line.strip_prefix(".entry "))?;
    Some(rest.split('(').next()?.trim().to_owned())
}

/// Labels without the number of the function: they are local to it, and a kernel's text then stays the same
/// when another one is added.
fn local_labels(body: &str) -> String {
    const PREFIX: &str = "$L__BB";
    let mut parts = body.split(PREFIX);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text += "$L";
        text += part.trim_start_matches(|digit: char| digit.is_ascii_digit());
    }
    text
}

fn launch_bounds(spec: &KernelSpec) -> String {
    let mut text = format!(".maxntid {}, 1, 1\n.minnctapersm {}\n", spec.threads, spec.blocks_per_sm);
    if spec.cluster > 1 {
        text += &format!(".explicitcluster\n.reqnctapercluster {}, 1, 1\n", spec.cluster);
    }
    text
}

/// Compiles the kernels for one architecture.
fn build(arch: Target) -> Result<Module> {
    let folder = target().join("kernels");
    let raw = CudaBuilder::new(kernels())
        .arch(arch.arch())
        .release(true)
        .target_dir(folder.join(arch.name()))
        .build_args(["--locked", "--quiet"])
        .build()
        .map_err(|error| format!("{error}\n{}", setup::HINT))?;
    let specs: Vec<_> = arch.specs().collect();
    let module = Module::parse(&read(&raw)?)?.with_launch_bounds(&specs)?;
    let complaints = lint::complaints(&module);
    if !complaints.is_empty() {
        create_folder(&folder)?;
        let kept = folder.join(format!("{}.rejected.ptx", arch.name()));
        write(&kept, &module.text())?;
        return Err(format!("{} (see {}):\n  {}", arch.name(), kept.display(), complaints.join("\n  ")));
    }
    Ok(module)
}

/// The shipped module, as it is checked in.
pub(crate) fn shipped(arch: Target) -> Result<Module> {
    Module::parse(&read(&arch.file())?)
}

/// Builds and writes every shipped module, or compares them with what is checked in.
pub(crate) fn build_kernels(check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for arch in Target::ALL {
        let text = build(arch)?.text();
        let file = arch.file();
        let old = read(&file).unwrap_or_default();
        let shown = file.strip_prefix(root()).unwrap_or(&file).display();
        match difference(&old, &text) {
            None => println!("{shown}: unchanged"),
            Some(difference) if check => {
                stale.push(format!("{shown} is not what the sources give, {difference}"))
            }
            Some(_) => {
                write(&file, &text)?;
                println!("{shown}: written, {} kernels", arch.specs().count());
            }
        }
    }
    if !stale.is_empty() {
        return Err(format!("{}\nrun `cargo xtask build-kernels` and commit the result", stale.join("\n")));
    }
    if check { resources::check() } else { resources::update() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &str = "//\n// Generated by LLVM\n//\n\n.version 8.0\n.target sm_80\n.address_size 64\n\n\
        \t// .globl\tfk_b\n.extern .shared .align 1024 .b8 dynamic_shared[];\n\
        .visible .entry fk_b(\n\t.param .u64 .ptr .align 1 fk_b_param_0,\n\t.param .align 4 .b8 fk_b_param_1[8]\n)\n{\n\
        \t.reg .b32 %r<2>;\n$L__BB0_1:\n\t// begin inline asm\n\t{\n\t.reg .pred p;\n}\n\t// end inline asm\n\
        \tbra $L__BB0_1;                       // say\n}\n\
        .visible .entry fk_a()\n{\n\tret;\n}\n";

    fn spec(name: &'static str, cluster: u32) -> KernelSpec {
        KernelSpec { name, threads: 128, blocks_per_sm: 2, cluster, shared_bytes: 0, min_sm: 80 }
    }

    #[test]
    fn a_module_is_put_in_order_and_bounded() {
        let (a, b) = (spec("fk_a", 1), spec("fk_b", 2));
        let module = Module::parse(RAW).unwrap().with_launch_bounds(&[&b, &a]).unwrap();
        let text = module.text();
        assert_eq!(
            text,
            "// Generated from the kernels' sources by `cargo xtask build-kernels`.\n\
             .version 8.0\n.target sm_80\n.address_size 64\n\
             .extern .shared .align 1024 .b8 dynamic_shared[];\n\
             \n// entry fk_a\n.visible .entry fk_a()\n.maxntid 128, 1, 1\n.minnctapersm 2\n{\n\tret;\n}\n\
             \n// entry fk_b\n.visible .entry fk_b(\n\t.param .u64 .ptr .align 1 fk_b_param_0,\n\
             \t.param .align 4 .b8 fk_b_param_1[8]\n)\n.maxntid 128, 1, 1\n.minnctapersm 2\n\
             .explicitcluster\n.reqnctapercluster 2, 1, 1\n{\n\
             \t.reg .b32 %r<2>;\n$L_1:\n\t{\n\t.reg .pred p;\n}\n\tbra $L_1;\n}\n"
        );
        // What is shipped can be read again.
        let again = Module::parse(&text).unwrap();
        assert_eq!(again.text(), text);
        assert_eq!(again.entries[1].directives, module.entries[1].directives);
        assert!(kernels_gpu::ptx_of(&text, &["fk_b"]).unwrap().ends_with("bra $L_1;\n}\n"));
    }

    #[test]
    fn entries_and_table_must_agree() {
        let error =
            |specs: &[&KernelSpec]| Module::parse(RAW).unwrap().with_launch_bounds(specs).unwrap_err();
        let (a, b, c) = (spec("fk_a", 1), spec("fk_b", 1), spec("fk_c", 1));
        assert!(error(&[&a, &b, &c]).contains("fk_c is missing"));
        assert!(error(&[&a]).contains("fk_b is not in the table"));
        assert!(Module::parse(".visible .entry fk_a(\n)\n{\n").is_err());
    }
}
