//! Which kernels run for which shape: a few thresholds, chosen once for a GPU when it is opened.
//!
//! None of them changes labels or centroids: labels are exact and the order of additions is the problem's own, whichever
//! kernels run. (The inertia of an iteration in the history, which nothing is decided by, may differ in its last bits.
//! Labels that need not be exact may differ where other products are used, narrow, wide or by warps.) What
//! fixes the order of additions, [`Panels`] and what `finalise` makes of them, is no part of a plan.
use crate::error::{Error, Result};
use kernels_gpu::spec::*;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

/// Plans that were found by measuring, which `cargo xtask tune` writes.
const SHIPPED: &str = include_str!("plans.txt");
/// The environment variable that names a table to look into before the shipped one.
const VARIABLE: &str = "FLASH_KMEANS_PLAN";

/// A value, or what is wrong with its text.
type Parsed<T> = std::result::Result<T, String>;

/// What of a GPU a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// Major and minor.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Shared memory that a block can ask for.
    pub shared_bytes: u32,
    /// The L2 cache.
    pub l2_bytes: u32,
}

impl Hardware {
    const WORDS: [&str; 4] = ["compute_capability", "multiprocessors", "shared_bytes", "l2_bytes"];
}

impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hardware { compute_capability: (major, minor), multiprocessors, shared_bytes, l2_bytes } = self;
        let [a, b, c, d] = Self::WORDS;
        write!(f, "{a}={major}.{minor} {b}={multiprocessors} {c}={shared_bytes} {d}={l2_bytes}")
    }
}

impl FromStr for Hardware {
    type Err = String;
    fn from_str(text: &str) -> Parsed<Self> {
        let [capability, multiprocessors, shared_bytes, l2_bytes] = values_of(Self::WORDS, text)?;
        let (major, minor) =
            capability.split_once('.').ok_or_else(|| format!("{capability} is not as in 9.0"))?;
        Ok(Hardware {
            compute_capability: (number(major)?, number(minor)?),
            multiprocessors: number(multiprocessors)?,
            shared_bytes: number(shared_bytes)?,
            l2_bytes: number(l2_bytes)?,
        })
    }
}

/// How the row indices of a panel are sorted; all ways give the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// A block a panel, which then sums it.
    Block,
    /// One pass by whole labels.
    Whole,
    /// A pass for each digit of the labels.
    Digits,
}

/// What is chosen, by shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchPlan {
    /// Points of at most so many steps of 16 features (and of any up to 64 features) are assigned from registers, by the
    /// narrow kernels; others by the wide one.
    pub narrow_steps: u32,
    /// Most clusters of problems that are assigned on Hopper as on any GPU, by products of single warps in many small blocks.
    pub mma_clusters: u32,
    /// Most steps of 16 features of their points.
    pub mma_steps: u32,
    /// Tiles of 128 centroids from which on they are ordered by norm.
    pub ordered_tiles: u32,
    /// Tiles of 128 centroids from which on a pass over the points finds floors for their scores.
    pub floored_tiles: u32,
    /// Most steps of 16 features of points for which it does.
    pub floored_steps: u32,
    /// Unsure points from which on the tensor cores assign them again, before float64 does.
    pub refined_points: u32,
    /// Blocks a multiprocessor that settle what the tensor cores could not.
    pub settle_blocks: u32,
    /// Most clusters of a sort in one pass by whole labels.
    pub whole_sort_clusters: u32,
}

impl LaunchPlan {
    /// The names of all values, in their order.
    pub const NAMES: [&str; 9] = [
        "narrow_steps",
        "mma_clusters",
        "mma_steps",
        "ordered_tiles",
        "floored_tiles",
        "floored_steps",
        "refined_points",
        "settle_blocks",
        "whole_sort_clusters",
    ];

    /// All values, in the order of [`Self::NAMES`].
    pub fn values(&self) -> [u32; 9] {
        let Self {
            narrow_steps,
            mma_clusters,
            mma_steps,
            ordered_tiles,
            floored_tiles,
            floored_steps,
            refined_points,
            settle_blocks,
            whole_sort_clusters,
        } = *self;
        [
            narrow_steps,
            mma_clusters,
            mma_steps,
            ordered_tiles,
            floored_tiles,
            floored_steps,
            refined_points,
            settle_blocks,
            whole_sort_clusters,
        ]
    }

    /// The plan of these values, in the order of [`Self::NAMES`].
    pub fn of_values(values: [u32; 9]) -> Self {
        let [
            narrow_steps,
            mma_clusters,
            mma_steps,
            ordered_tiles,
            floored_tiles,
            floored_steps,
            refined_points,
            settle_blocks,
            whole_sort_clusters,
        ] = values;
        LaunchPlan {
            narrow_steps,
            mma_clusters,
            mma_steps,
            ordered_tiles,
            floored_tiles,
            floored_steps,
            refined_points,
            settle_blocks,
            whole_sort_clusters,
        }
    }

    /// What each value can be on `hardware`: kernels have to fit its shared memory, and labels their counters.
    fn limits(hardware: &Hardware) -> [RangeInclusive<u32>; 9] {
        let where_fits = |bytes: u32, most: u32| if bytes <= hardware.shared_bytes { most } else { 0 };
        let narrow = |steps: &u32| HopperShared::new(*steps).bytes <= hardware.shared_bytes;
        // The wide kernel takes panels of 64 features, two at least.
        const LEAST_STEPS: u32 = HOPPER_PANEL_FEATURES / HOPPER_STEP_FEATURES;
        [
            LEAST_STEPS..=(LEAST_STEPS..=HOPPER_MAX_STEPS).rev().find(narrow).unwrap_or(LEAST_STEPS),
            0..=u32::MAX,
            0..=u32::MAX,
            1..=u32::MAX,
            1..=u32::MAX,
            0..=u32::MAX,
            1..=u32::MAX,
            1..=64,
            0..=where_fits(WholePlaceShared::new().bytes, WHOLE_CLUSTERS),
        ]
    }

    /// A plan for any GPU, by what it has:
    ///
    /// - *shared memory*: the widest points that fit it beside the ring of centroids stay in registers; sorts that count
    ///   labels there are used as far as they fit;
    /// - *multiprocessors*: about as many blocks settle as were best where it was measured, and at most what is resident at
    ///   a time;
    /// - *L2*: a sort by whole labels writes to as many places at a time as there are clusters and tiles under way; they
    ///   have to stay in the cache until their sectors are whole.
    ///
    /// The rest weighs tensor cores against memory, which no attribute tells: as measured on an H200.
    pub fn by_rule(hardware: &Hardware) -> Self {
        const SETTLE_BLOCKS: u32 = 512;
        const TILES_A_MULTIPROCESSOR: u64 = 2;
        const SECTOR_BYTES: u64 = 32;
        let [narrow, .., whole_sort] = Self::limits(hardware).map(|limits| *limits.end());
        let multiprocessors = hardware.multiprocessors.max(1);
        let heads = TILES_A_MULTIPROCESSOR * u64::from(multiprocessors) * SECTOR_BYTES;
        let heads = (u64::from(hardware.l2_bytes) / heads).min(u64::from(u32::MAX)) as u32;
        LaunchPlan {
            narrow_steps: narrow,
            mma_clusters: HOPPER_CENTROIDS,
            mma_steps: HOPPER_MAX_STEPS,
            ordered_tiles: 4,
            floored_tiles: 16,
            floored_steps: 4,
            refined_points: 256,
            settle_blocks: SETTLE_BLOCKS.div_ceil(multiprocessors).clamp(4, 8),
            // A digit's worth takes one pass either way.
            whole_sort_clusters: heads.max(SORT_DIGITS).min(whole_sort),
        }
    }

    /// The plan for `hardware`: of the table that the environment variable `FLASH_KMEANS_PLAN` names, else of the shipped
    /// one, else by rule.
    ///
    /// # Errors
    /// [`Error::Io`] when that table cannot be read, [`Error::Format`] when one of its lines is wrong.
    pub fn of(hardware: &Hardware) -> Result<Self> {
        Self::chosen(hardware, std::env::var_os(VARIABLE).as_deref().map(Path::new))
    }

    fn chosen(hardware: &Hardware, table: Option<&Path>) -> Result<Self> {
        if let Some(path) = table {
            let text = std::fs::read_to_string(path)
                .map_err(|source| Error::Io { path: path.to_owned(), source })?;
            if let Some(plan) = entry(hardware, &text, path)? {
                return Ok(plan);
            }
        }
        let shipped = entry(hardware, SHIPPED, Path::new("plans.txt"))?;
        Ok(shipped.unwrap_or_else(|| Self::by_rule(hardware)))
    }

    /// # Errors
    /// [`Error::InvalidArgument`] when a value is not one that `hardware` and the kernels take.
    pub fn check(&self, hardware: &Hardware) -> Result<()> {
        let limits = Self::limits(hardware);
        for ((argument, value), limits) in Self::NAMES.into_iter().zip(self.values()).zip(limits) {
            if !limits.contains(&value) {
                return Err(Error::InvalidArgument {
                    argument,
                    value: format!("{value}, not {} to {}", limits.start(), limits.end()),
                    rule: "a launch plan must suit the kernels and the GPU",
                });
            }
        }
        Ok(())
    }

    /// Whether points of `d` dimensions are assigned by the narrow kernels.
    pub(super) fn is_narrow(&self, d: u32) -> bool {
        hopper_steps(d) <= self.narrow_steps
    }

    /// Whether single warps assign where Hopper's own kernels could.
    pub(super) fn is_by_warps(&self, shape: Shape) -> bool {
        shape.k <= self.mma_clusters && hopper_steps(shape.d) <= self.mma_steps
    }

    /// Whether tiles are made of centroids in the order of their norms.
    pub(super) fn is_ordered(&self, k: u32) -> bool {
        k.div_ceil(HOPPER_CENTROIDS) >= self.ordered_tiles
    }

    /// Whether floors are worth a pass over the points.
    pub(super) fn has_floors(&self, shape: Shape) -> bool {
        hopper_steps(shape.d) <= self.floored_steps && shape.centroid_tiles() >= self.floored_tiles
    }

    /// Unsure points that there is room for when they are assigned again: none where that is not worth looking at their number.
    pub(super) fn room_again(&self, [batch, n, d]: [u64; 3]) -> u64 {
        /// Fewer coordinates than this for each of the points that it takes are multiplied too soon for three launches more.
        const COORDINATES: u64 = 1 << 17;
        /// For one of so many points there is room.
        const SHARE: u64 = 8;
        let is_large = batch == 1 && n * d / COORDINATES >= self.refined_points.into();
        if is_large { n.div_ceil(SHARE) } else { 0 }
    }

    /// How they are assigned again by so many clusters, where that may be worth it.
    pub(super) fn refine(&self, shape: Shape, teams: u32) -> Option<RefineParams> {
        let capacity = self.room_again([shape.batch, shape.n, shape.d].map(u64::from)) as u32;
        (capacity > 0).then_some(RefineParams { shape, slot: 0, least: self.refined_points, capacity, teams })
    }

    pub(super) fn sort(&self, panels: Panels, k: u32) -> Sort {
        if panels.fit_a_block(k) {
            Sort::Block
        } else if k <= self.whole_sort_clusters {
            Sort::Whole
        } else {
            Sort::Digits
        }
    }
}

impl fmt::Display for LaunchPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in Self::NAMES.into_iter().zip(self.values()).enumerate() {
            write!(f, "{}{name}={value}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl FromStr for LaunchPlan {
    type Err = String;
    fn from_str(text: &str) -> Parsed<Self> {
        let mut values = [0; 9];
        for (value, word) in values.iter_mut().zip(values_of(Self::NAMES, text)?) {
            *value = number(word)?;
        }
        Ok(Self::of_values(values))
    }
}

/// The plan for `hardware` in the table `text`, every line of which is checked; `path` is for messages.
fn entry(hardware: &Hardware, text: &str, path: &Path) -> Result<Option<LaunchPlan>> {
    let mut found = None;
    for (line, content) in text.lines().enumerate() {
        let content = content.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        let wrong =
            |reason| Error::Format { path: path.to_owned(), reason: format!("line {}: {reason}", line + 1) };
        let (key, plan) = content
            .split_once(':')
            .ok_or_else(|| wrong("there is no colon between GPU and plan".to_owned()))?;
        let key: Hardware = key.parse().map_err(wrong)?;
        let plan: LaunchPlan = plan.parse().map_err(wrong)?;
        plan.check(&key).map_err(|error| wrong(error.to_string()))?;
        if key == *hardware && found.replace(plan).is_some() {
            return Err(wrong("this GPU has a line before".to_owned()));
        }
    }
    Ok(found)
}

/// The values of `names` in words `name=value`: each once, and no other.
fn values_of<'a, const N: usize>(names: [&str; N], text: &'a str) -> Parsed<[&'a str; N]> {
    let mut values = [None; N];
    for word in text.split_whitespace() {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("{word} is not NAME=VALUE"))?;
        let at = names.iter().position(|known| *known == name).ok_or_else(|| format!("unknown: {name}"))?;
        if values[at].replace(value).is_some() {
            return Err(format!("{name} is there twice"));
        }
    }
    if let Some(at) = values.iter().position(Option::is_none) {
        return Err(format!("{} is missing", names[at]));
    }
    Ok(values.map(Option::unwrap_or_default))
}

fn number(word: &str) -> Parsed<u32> {
    word.parse().map_err(|_| format!("{word} is not a number under 2^32"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: Hardware = Hardware {
        compute_capability: (9, 0),
        multiprocessors: 132,
        shared_bytes: 227 << 10,
        l2_bytes: 60 << 20,
    };
    const SMALL: Hardware = Hardware {
        compute_capability: (8, 6),
        multiprocessors: 28,
        shared_bytes: 99 << 10,
        l2_bytes: 3 << 20,
    };

    fn read(hardware: &Hardware, text: &str) -> Result<Option<LaunchPlan>> {
        entry(hardware, text, Path::new("table"))
    }

    fn reason(text: &str) -> String {
        match read(&H200, text) {
            Err(Error::Format { path, reason }) if path == Path::new("table") => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_shipped_table_is_right_and_other_gpus_get_the_rule() {
        assert!(read(&H200, SHIPPED).unwrap().is_some());
        assert_eq!(read(&SMALL, SHIPPED).unwrap(), None);
        assert_eq!(LaunchPlan::chosen(&SMALL, None).unwrap(), LaunchPlan::by_rule(&SMALL));
    }

    #[test]
    fn a_named_table_comes_first() {
        let folder = std::env::temp_dir().join(format!("flash-kmeans-plans-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("table");
        let missing = LaunchPlan::chosen(&H200, Some(&path));
        let plan = LaunchPlan { settle_blocks: 7, ..LaunchPlan::by_rule(&H200) };
        std::fs::write(&path, format!("{H200}: {plan}\n")).unwrap();
        let (found, other) =
            (LaunchPlan::chosen(&H200, Some(&path)), LaunchPlan::chosen(&SMALL, Some(&path)));
        std::fs::write(&path, "settle_blocks=7\n").unwrap();
        let wrong = LaunchPlan::chosen(&H200, Some(&path));
        std::fs::remove_dir_all(&folder).unwrap();

        assert!(matches!(missing, Err(Error::Io { path: named, .. }) if named == path));
        assert_eq!(found.unwrap(), plan);
        assert_eq!(other.unwrap(), LaunchPlan::by_rule(&SMALL));
        assert!(matches!(wrong, Err(Error::Format { path: named, .. }) if named == path));
    }

    #[test]
    fn the_rule_keeps_to_what_the_hardware_has() {
        for multiprocessors in [1, 16, 28, 78, 108, 132, 160, 1000] {
            for shared_bytes in [0, 48 << 10, 99 << 10, 163 << 10, 227 << 10, u32::MAX] {
                for l2_bytes in [0, 512 << 10, 3 << 20, 60 << 20, u32::MAX] {
                    let hardware =
                        Hardware { compute_capability: (9, 0), multiprocessors, shared_bytes, l2_bytes };
                    LaunchPlan::by_rule(&hardware).check(&hardware).unwrap();
                }
            }
        }
        let h200 = LaunchPlan::by_rule(&H200);
        assert_eq!((h200.narrow_steps, h200.settle_blocks), (8, 4));
        assert_eq!(h200.whole_sort_clusters, 4096);
        // 3 MiB hold the open sectors of 56 tiles for no more clusters than this.
        let middling = LaunchPlan::by_rule(&Hardware { shared_bytes: 163 << 10, ..SMALL });
        assert_eq!(middling.whole_sort_clusters, 1755);
        let small = LaunchPlan::by_rule(&SMALL);
        assert_eq!(small.whole_sort_clusters, 0);
        assert_eq!(small.sort(Panels::of(1000, 1000), 1000), Sort::Digits);
    }

    #[test]
    fn a_line_comes_back_as_it_was_written() {
        let plan = LaunchPlan::of_values([5, 64, 7, 2, 64, 12, 1000, 8, 2048]);
        let table = format!("# GPUs\n\n{SMALL}: {}\n{H200}: {plan} # a name\n", LaunchPlan::by_rule(&SMALL));
        assert_eq!(read(&H200, &table).unwrap(), Some(plan));
        assert_eq!(read(&SMALL, &table).unwrap(), Some(LaunchPlan::by_rule(&SMALL)));
    }

    #[test]
    fn wrong_lines_are_named() {
        let plan = LaunchPlan::by_rule(&H200);
        let line = format!("{H200}: {plan}\n");
        assert!(reason(&line.replace(':', "")).contains("colon"));
        assert!(reason(&format!("\n{}", line.replace("9.0", "9"))).starts_with("line 2: 9 "));
        assert!(reason(&line.replace("=132", "=many")).contains("many is not a number"));
        assert!(reason(&line.replace(" l2_bytes=62914560", "")).contains("l2_bytes is missing"));
        assert!(reason(&line.replace("ordered_tiles=4", "ordered_tiles")).contains("NAME=VALUE"));
        assert!(reason(&line.replace("ordered_tiles", "ordered_rows")).contains("unknown: ordered_rows"));
        assert!(
            reason(&line.replace("ordered_tiles", "narrow_steps")).contains("narrow_steps is there twice")
        );
        assert!(reason(&line.replace("narrow_steps=8", "narrow_steps=9")).contains("not 4 to 8"));
        assert!(reason(&line.repeat(2)).contains("line 2: this GPU has a line before"));
    }

    #[test]
    fn shapes_go_by_the_thresholds() {
        let plan = LaunchPlan {
            narrow_steps: 6,
            mma_clusters: 128,
            mma_steps: 8,
            floored_steps: 6,
            ..LaunchPlan::by_rule(&H200)
        };
        assert!(plan.is_narrow(1) && plan.is_narrow(96) && !plan.is_narrow(97));
        assert!(plan.is_by_warps(Shape::new(1, 1 << 20, 128, 128, 2)));
        assert!(!plan.is_by_warps(Shape::new(1, 1 << 20, 129, 128, 2)));
        assert!(!plan.is_by_warps(Shape::new(1, 1 << 20, 128, 129, 2)));
        assert!(plan.is_ordered(385) && !plan.is_ordered(384));
        let shape = |k, d| Shape::new(1, 1 << 20, k, d, 2);
        assert!(plan.has_floors(shape(1921, 96)));
        assert!(!plan.has_floors(shape(1920, 96)) && !plan.has_floors(shape(1921, 97)));
        assert!(plan.refine(Shape::new(1, 1 << 18, 1000, 128, 2), 66).is_some());
        assert!(plan.refine(Shape::new(1, (1 << 18) - 1, 1000, 128, 2), 66).is_none());
        assert!(plan.refine(Shape::new(2, 1 << 18, 1000, 128, 2), 66).is_none());
        assert_eq!(plan.room_again([1, 1 << 18, 128]), 1 << 15);
        let plan = LaunchPlan { refined_points: 257, ..plan };
        assert_eq!(plan.room_again([1, 1 << 18, 128]), 0);
        assert_eq!(plan.sort(Panels::of(1 << 15, 512), 512), Sort::Block);
        assert_eq!(plan.sort(Panels::of(1 << 15, 513), 513), Sort::Whole);
        assert_eq!(plan.sort(Panels::of((1 << 15) + 1, 512), 512), Sort::Whole);
        assert_eq!(plan.sort(Panels::of(1 << 20, 4097), 4097), Sort::Digits);
    }
}
