//! What is seen of a fit while it runs: a bar, or lines, and Ctrl-C.
use flash_kmeans::{Float, IterationEnd, Observer, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ndarray::Array2;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C asks for a stop, and a second one ends the process. Before, and where a signal cannot be caught, it
/// ends the process as it always does.
fn catch_ctrl_c() {
    static CAUGHT: Once = Once::new();
    CAUGHT.call_once(|| {
        let _ = ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            eprintln!("stopping with this chunk of points; Ctrl-C again ends at once");
        });
    });
}

/// Shows how far a fit is, and stops it at Ctrl-C.
pub(crate) struct Watcher<C> {
    bar: ProgressBar,
    lines: bool,
    max_iter: usize,
    /// The centroids after the last complete iteration of a fit of one problem, and which that was.
    pub(crate) last: Option<(usize, Array2<C>)>,
    keeps: bool,
}

impl<C> Watcher<C> {
    /// For a fit of at most `max_iter` iterations. `keeps` says whether to keep the last centroids.
    pub(crate) fn new(max_iter: usize, keeps: bool, quiet: bool, progress: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            None,
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(4) },
        );
        let style = ProgressStyle::with_template("{prefix} {bar:30} {percent:>3} %, at most {eta} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Watcher { bar, lines: progress && !quiet && !terminal, max_iter, last: None, keeps }
    }
}

impl<C> Drop for Watcher<C> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl<C: Float> Observer<C> for Watcher<C> {
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        catch_ctrl_c();
        if progress.problem == 0 {
            let n = progress.n as u64;
            self.bar.set_length(n * self.max_iter as u64);
            self.bar.set_prefix(format!("iteration {}", progress.iterations + 1));
            self.bar.set_position(n * progress.iterations as u64 + progress.rows as u64);
        }
        if STOP.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn iteration(&mut self, end: IterationEnd<'_, C>) -> ControlFlow<()> {
        if end.problem == 0 {
            self.bar.set_message(format!(
                "inertia {:.6e}, {} labels changed",
                end.stats.inertia, end.stats.changed
            ));
            if self.lines {
                let (iterations, stats) = (end.iterations, end.stats);
                eprintln!(
                    "iteration {iterations}: inertia {:.6e}, {} labels changed",
                    stats.inertia, stats.changed
                );
            }
            if self.keeps {
                self.last = Some((end.iterations, end.centroids.to_owned()));
            }
        }
        ControlFlow::Continue(())
    }
}
