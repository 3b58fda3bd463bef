/*!
A picture of a clustering: points and centroids on the plane of the first two principal components, as one
self-contained SVG or HTML text.

```
use flash_kmeans::{Backend, FlashKMeans, report::Picture};
use ndarray::array;

let points = array![[0.0f32, 0.0], [0.1, 0.0], [9.0, 9.0], [9.1, 9.0]];
let model = FlashKMeans::new(2).backend(Backend::Cpu).fit(points.view())?;
let picture = Picture::new(points.view(), model.labels().view(), model.centroids().view())?;
assert!(picture.title("Two pairs").svg().starts_with("<svg"));
# Ok::<(), flash_kmeans::Error>(())
```
*/
use crate::error::{Error, Result};
use crate::{Element, IterationStats};
use ndarray::{Array2, ArrayView1, ArrayView2};
use std::fmt::Write;

/// Points drawn at most; more are thinned to every so-many-th.
const MAX_POINTS: usize = 4000;
/// Values of the sample at most, which bounds memory for very wide points.
const MAX_VALUES: usize = 1 << 23;

/// Colours of the clusters, in turn; each is readable on white and on near-black.
const PALETTE: [&str; 12] = [
    "#2f6fde", "#e8590c", "#2b9a4b", "#c2368a", "#0e98a8", "#b0851a", "#7a52d6", "#e03131", "#5c8a14",
    "#64748b", "#8a6a57", "#e64980",
];

/// A clustering of `(n, d)` points, ready to be drawn.
///
/// # Examples
/// ```
/// use flash_kmeans::{FlashKMeans, report::Picture};
/// use ndarray::array;
///
/// let points = array![[0.0f32, 0.0], [0.0, 1.0], [9.0, 8.0], [9.0, 9.0]];
/// let model = FlashKMeans::new(2).fit(points.view())?;
/// let picture = Picture::new(points.view(), model.labels().view(), model.centroids().view())?;
/// assert!(picture.title("four points").svg().starts_with("<svg"));
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Picture {
    title: String,
    subtitle: String,
    facts: Vec<(String, String)>,
    /// Inertia by iteration.
    history: Vec<f64>,
    /// Sampled points in the plane, with their clusters.
    points: Vec<([f64; 2], u32)>,
    centroids: Vec<[f64; 2]>,
    sizes: Vec<u64>,
    /// Share of the sample's variance along each axis.
    explained: [f64; 2],
}

impl Picture {
    /// Projects the points, at most 4,000 of them at even steps, on their first two principal components,
    /// and the centroids on the same plane.
    ///
    /// # Errors
    /// [`Error::Shape`] when the three arrays do not belong together, or are empty.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, report::Picture};
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # let model = FlashKMeans::new(2).fit(points.view())?;
    /// let picture = Picture::new(points.view(), model.labels().view(), model.centroids().view())?;
    /// assert!(picture.svg().starts_with("<svg"));
    /// assert!(Picture::new(points.view(), array![0].view(), model.centroids().view()).is_err());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn new<T: Element>(
        points: ArrayView2<'_, T>,
        labels: ArrayView1<'_, u32>,
        centroids: ArrayView2<'_, T::Centroid>,
    ) -> Result<Self> {
        let (n, d) = points.dim();
        let k = centroids.nrows();
        let shape = |what, expected, actual| Err(Error::Shape { what, expected, actual });
        if n == 0 || d == 0 {
            return shape("points", "(1 or more, 1 or more)".into(), format!("({n}, {d})"));
        }
        if labels.len() != n {
            return shape("labels", format!("({n})"), format!("({})", labels.len()));
        }
        if centroids.ncols() != d {
            return shape("centroids", format!("(any, {d})"), format!("({k}, {})", centroids.ncols()));
        }
        let mut sizes = vec![0; k];
        for &label in labels {
            match sizes.get_mut(label as usize) {
                Some(size) => *size += 1,
                None => return shape("labels", format!("values below {k}"), label.to_string()),
            }
        }
        let drawn = n.min(MAX_POINTS).min((MAX_VALUES / d).max(2));
        // At even steps, to the last row: rows are often sorted, and a picture of the first thousands lies.
        let rows: Vec<usize> = (0..drawn).map(|i| (i as u128 * n as u128 / drawn as u128) as usize).collect();
        let sample = Array2::from_shape_fn((drawn, d), |(i, j)| points[(rows[i], j)].to_f64());
        let plane = Plane::of(sample);
        Ok(Picture {
            title: "k-means".into(),
            subtitle: format!("{} points · {} dimensions · {} clusters", grouped(n as u64), d, k),
            facts: Vec::new(),
            history: Vec::new(),
            points: rows.iter().enumerate().map(|(i, &row)| (plane.sample[i], labels[row])).collect(),
            centroids: centroids
                .rows()
                .into_iter()
                .map(|c| plane.project(c.iter().map(|v| v.to_f64())))
                .collect(),
            sizes,
            explained: plane.explained,
        })
    }

    /// The first line of the picture.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, report::Picture};
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # let model = FlashKMeans::new(2).fit(points.view())?;
    /// let picture = Picture::new(points.view(), model.labels().view(), model.centroids().view())?;
    /// assert!(picture.title("four points").svg().contains("four points"));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Adds a row to the summary table of [`html`](Self::html).
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, report::Picture};
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # let model = FlashKMeans::new(2).fit(points.view())?;
    /// let picture = Picture::new(points.view(), model.labels().view(), model.centroids().view())?;
    /// assert!(picture.fact("iterations", model.n_iter().to_string()).html().contains("iterations"));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn fact(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.facts.push((name.into(), value.into()));
        self
    }

    /// Adds the inertia by iteration to [`html`](Self::html).
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, report::Picture};
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # let model = FlashKMeans::new(2).fit(points.view())?;
    /// let picture = Picture::new(points.view(), model.labels().view(), model.centroids().view())?;
    /// let page = picture.history(&model.problems()[0].history).html();
    /// assert!(page.contains("Inertia by iteration"));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn history(mut self, history: &[IterationStats]) -> Self {
        self.history = history.iter().map(|iteration| iteration.inertia).collect();
        self
    }

    /// The picture as SVG: scales to the width it is given, follows the reader's light or dark scheme.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, report::Picture};
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # let model = FlashKMeans::new(2).fit(points.view())?;
    /// let picture = Picture::new(points.view(), model.labels().view(), model.centroids().view())?;
    /// assert!(picture.svg().starts_with("<svg"));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn svg(&self) -> String {
        let mut svg = String::new();
        // Writing to a String cannot fail.
        let _ = self.draw(&mut svg);
        svg
    }

    /// The picture as an HTML page, with the inertia by iteration, the facts and the largest clusters
    /// below it. It needs nothing but itself.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, report::Picture};
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # let model = FlashKMeans::new(2).fit(points.view())?;
    /// let picture = Picture::new(points.view(), model.labels().view(), model.centroids().view())?;
    /// assert!(picture.html().starts_with("<!doctype html>"));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn html(&self) -> String {
        let mut html = String::new();
        let _ = self.page(&mut html);
        html
    }

    fn draw(&self, out: &mut String) -> std::fmt::Result {
        let frame = Frame::around(self.points.iter().map(|(p, _)| *p).chain(self.centroids.iter().copied()));
        let k = self.centroids.len();
        let radius = if self.points.len() > 1000 { 2.3 } else { 3.5 };
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"100%\" \
             style=\"max-width:{}px;max-height:100vh\" role=\"img\" aria-label=\"{}\">",
            WIDTH * 3 / 2,
            escaped(&format!("{}: {}", self.title, self.subtitle))
        )?;
        writeln!(out, "<title>{}</title>", escaped(&self.title))?;
        write!(
            out,
            "<style>\
             .fk-back{{fill:#fff}}.fk-text{{fill:#1c1e21;font-family:system-ui,sans-serif}}\
             .fk-soft{{fill:#5a6068}}.fk-frame{{fill:#f7f8fa;stroke:#c9cdd3}}.fk-ring{{stroke:#fff}}\
             .fk-number{{fill:#fff;font-family:system-ui,sans-serif;font-weight:700}}\
             .fk-dots{{fill:none;stroke-linecap:round;stroke-width:{:.1};stroke-opacity:.62}}",
            radius * 2.0
        )?;
        writeln!(
            out,
            "@media (prefers-color-scheme:dark){{.fk-back{{fill:#14161a}}.fk-text{{fill:#eceef1}}\
             .fk-soft{{fill:#a3abb6}}.fk-frame{{fill:#1b1e24;stroke:#3a404a}}.fk-ring{{stroke:#14161a}}\
             .fk-dots{{stroke-opacity:.72}}}}</style>"
        )?;
        writeln!(out, "<rect class=\"fk-back\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>")?;
        text(out, "fk-text", 26, [LEFT as f64, 44.0], &shortened(&self.title, 44))?;
        text(out, "fk-text fk-soft", 20, [LEFT as f64, 76.0], &self.subtitle)?;
        writeln!(
            out,
            "<rect class=\"fk-frame\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{SIDE}\" height=\"{SIDE}\" rx=\"6\"/>"
        )?;

        // One path a colour: a point is a dot of zero length with round ends.
        for (colour, stroke) in PALETTE.iter().enumerate() {
            let mut path = String::new();
            for (point, _) in
                self.points.iter().filter(|(_, label)| *label as usize % PALETTE.len() == colour)
            {
                let [x, y] = frame.place(*point);
                write!(path, "M{x:.1} {y:.1}h0")?;
            }
            if !path.is_empty() {
                writeln!(out, "<path class=\"fk-dots\" stroke=\"{stroke}\" d=\"{path}\"/>")?;
            }
        }

        let (ring, size) = match k {
            0..=30 => (14.0, 17),
            31..=100 => (10.5, 12),
            _ => (5.0, 0),
        };
        // The largest last, on top.
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by_key(|&cluster| (self.sizes[cluster], std::cmp::Reverse(cluster)));
        for cluster in order {
            let [x, y] = frame.place(self.centroids[cluster]);
            let colour = PALETTE[cluster % PALETTE.len()];
            writeln!(
                out,
                "<g><title>cluster {cluster}: {} points</title><circle class=\"fk-ring\" cx=\"{x:.1}\" cy=\"{y:.1}\" \
                 r=\"{ring}\" fill=\"{colour}\" stroke-width=\"2.5\"/>",
                grouped(self.sizes[cluster])
            )?;
            if size > 0 {
                writeln!(
                    out,
                    "<text class=\"fk-number\" x=\"{x:.1}\" y=\"{:.1}\" font-size=\"{size}\" \
                     text-anchor=\"middle\">{cluster}</text>",
                    y + f64::from(size) * 0.36
                )?;
            }
            writeln!(out, "</g>")?;
        }

        let axis = |name: &str, share: f64| {
            format!("{name} principal component ({:.0} % of variance)", share * 100.0)
        };
        let (middle_x, middle_y) = (LEFT + SIDE / 2, TOP + SIDE / 2);
        writeln!(
            out,
            "<text class=\"fk-text\" font-size=\"20\" text-anchor=\"middle\" x=\"{middle_x}\" y=\"{}\">{}</text>",
            TOP + SIDE + 32,
            axis("first", self.explained[0])
        )?;
        writeln!(
            out,
            "<text class=\"fk-text\" font-size=\"20\" text-anchor=\"middle\" \
             transform=\"translate(30 {middle_y}) rotate(-90)\">{}</text>",
            axis("second", self.explained[1])
        )?;
        let drawn = self.points.len() as u64;
        let note = if drawn < self.sizes.iter().sum() {
            format!("{} points are drawn; numbered discs are the centroids", grouped(drawn))
        } else {
            "numbered discs are the centroids".into()
        };
        let note = if size > 0 { note } else { note.replace("numbered", "ringed") };
        text(out, "fk-text fk-soft", 17, [LEFT as f64, (TOP + SIDE + 62) as f64], &note)?;
        out.push_str("</svg>\n");
        Ok(())
    }

    /// A line of the inertia by iteration, from its least to its greatest value.
    fn draw_history(&self, out: &mut String) -> std::fmt::Result {
        const HIGH: usize = 320;
        const BOTTOM: f64 = 262.0;
        const TALL: f64 = 190.0;
        const MARKED: usize = 60;
        let (Some(&first), Some(&last)) = (self.history.first(), self.history.last()) else {
            return Ok(());
        };
        let least = self.history.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.history.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (left, wide) = (LEFT as f64 + 12.0, SIDE as f64 - 24.0);
        let place = |(iteration, inertia): (usize, &f64)| {
            let along = iteration as f64 / (self.history.len() - 1).max(1) as f64;
            let share = (inertia - least) / (most - least);
            [left + along * wide, BOTTOM - if share.is_finite() { share * TALL } else { 0.0 }]
        };
        let places: Vec<[f64; 2]> = self.history.iter().enumerate().map(place).collect();
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HIGH}\" width=\"100%\" \
             style=\"max-width:{}px\" role=\"img\" aria-label=\"inertia by iteration, from {first:.6e} to {last:.6e}\">\
             <style>.fk-line{{fill:none;stroke:#2f6fde;stroke-width:3}}.fk-mark{{fill:#2f6fde}}</style>",
            WIDTH * 3 / 2
        )?;
        text(out, "fk-text", 22, [LEFT as f64, 28.0], "Inertia by iteration")?;
        writeln!(
            out,
            "<rect class=\"fk-frame\" x=\"{LEFT}\" y=\"56\" width=\"{SIDE}\" height=\"222\" rx=\"6\"/>"
        )?;
        let line: Vec<String> = places.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        writeln!(out, "<polyline class=\"fk-line\" points=\"{}\"/>", line.join(" "))?;
        if places.len() <= MARKED {
            for (iteration, ([x, y], inertia)) in places.iter().zip(&self.history).enumerate() {
                writeln!(
                    out,
                    "<circle class=\"fk-mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"><title>iteration {}: {inertia:.6e}\
                     </title></circle>",
                    iteration + 1
                )?;
            }
        }
        let note = format!("iterations 1 to {}; {first:.5e} to {last:.5e}", places.len());
        text(out, "fk-text fk-soft", 20, [LEFT as f64, 306.0], &note)?;
        out.push_str("</svg>\n");
        Ok(())
    }

    fn page(&self, out: &mut String) -> std::fmt::Result {
        const SHOWN: usize = 20;
        let title = escaped(&self.title);
        writeln!(
            out,
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
             <style>body{{margin:0 auto;max-width:60rem;padding:.5rem;font:1rem/1.5 system-ui,sans-serif;\
             background:#fff;color:#1c1e21}}\
             table{{border-collapse:collapse;margin:1rem 0}}caption{{text-align:left;font-weight:700}}\
             th,td{{text-align:left;padding:.2rem 1rem .2rem 0;overflow-wrap:anywhere;border-bottom:1px solid #c9cdd3;vertical-align:middle}}\
             th{{font-weight:400;color:#5a6068}}.n{{text-align:right;font-variant-numeric:tabular-nums}}\
             .bar{{height:.7rem;border-radius:2px;min-width:1px}}.wide{{width:100%}}\
             @media (prefers-color-scheme:dark){{body{{background:#14161a;color:#eceef1}}\
             th{{color:#a3abb6}}th,td{{border-color:#3a404a}}}}</style>"
        )?;
        self.draw(out)?;
        self.draw_history(out)?;
        if !self.facts.is_empty() {
            writeln!(out, "<table><caption>Summary</caption>")?;
            for (name, value) in &self.facts {
                writeln!(
                    out,
                    "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
                    escaped(name),
                    escaped(value)
                )?;
            }
            writeln!(out, "</table>")?;
        }
        let mut order: Vec<usize> = (0..self.sizes.len()).collect();
        order.sort_by_key(|&cluster| (std::cmp::Reverse(self.sizes[cluster]), cluster));
        let largest = order.first().map_or(1, |&cluster| self.sizes[cluster].max(1));
        let caption = if order.len() > SHOWN {
            format!("The {SHOWN} largest of {} clusters", order.len())
        } else {
            "Clusters".into()
        };
        writeln!(
            out,
            "<table class=\"wide\"><caption>{caption}</caption><tr><th>cluster</th><th class=\"n\">points</th>\
             <th class=\"wide\"></th></tr>"
        )?;
        for &cluster in order.iter().take(SHOWN) {
            writeln!(
                out,
                "<tr><td>{cluster}</td><td class=\"n\">{}</td><td><div class=\"bar\" \
                 style=\"width:{:.1}%;background:{}\"></div></td></tr>",
                grouped(self.sizes[cluster]),
                self.sizes[cluster] as f64 / largest as f64 * 100.0,
                PALETTE[cluster % PALETTE.len()]
            )?;
        }
        writeln!(out, "</table>\n</html>")
    }
}

// The drawing, in units of its view box. Letters of 17 to 26 units stay readable at a phone's width.
const WIDTH: usize = 680;
const HEIGHT: usize = 780;
const LEFT: usize = 48;
const TOP: usize = 96;
const SIDE: usize = 612;

/// Maps the plane to the drawing's frame, one scale for both axes.
struct Frame {
    middle: [f64; 2],
    scale: f64,
}

impl Frame {
    fn around(points: impl Iterator<Item = [f64; 2]>) -> Self {
        const MARGIN: f64 = 24.0;
        let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
        for point in points {
            for axis in 0..2 {
                low[axis] = low[axis].min(point[axis]);
                high[axis] = high[axis].max(point[axis]);
            }
        }
        let span = (high[0] - low[0]).max(high[1] - low[1]);
        let scale = if span > 0.0 && span.is_finite() { (SIDE as f64 - 2.0 * MARGIN) / span } else { 0.0 };
        Frame { middle: [low[0].midpoint(high[0]), low[1].midpoint(high[1])], scale }
    }

    fn place(&self, point: [f64; 2]) -> [f64; 2] {
        let half = SIDE as f64 / 2.0;
        let along = |axis: usize| (point[axis] - self.middle[axis]) * self.scale;
        [LEFT as f64 + half + along(0), TOP as f64 + half - along(1)]
    }
}

/// The plane of the first two principal components of a sample.
struct Plane {
    mean: Vec<f64>,
    axes: [Vec<f64>; 2],
    sample: Vec<[f64; 2]>,
    explained: [f64; 2],
}

impl Plane {
    /// By power iteration on both axes at once. The covariance is never formed: for wide points it is larger than
    /// the sample.
    fn of(mut sample: Array2<f64>) -> Self {
        let (n, d) = sample.dim();
        let mut mean = vec![0.0; d];
        for row in sample.rows() {
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += v / n as f64);
        }
        for mut row in sample.rows_mut() {
            row.iter_mut().zip(&mean).for_each(|(v, m)| *v -= m);
        }
        let variance = sample.iter().map(|v| v * v).sum::<f64>();

        // Any start will do that is not orthogonal to the answer; this one is the same on every run.
        let start =
            |seed: usize| (0..d).map(|j| ((j * (seed + 2) + seed) as f64 * 0.7548).sin() + 0.1).collect();
        let mut axes: [Vec<f64>; 2] = [start(0), start(1)];
        orthonormalise(&mut axes);
        let mut values = [0.0f64; 2];
        for _ in 0..100 {
            let mut next = [vec![0.0; d], vec![0.0; d]];
            for row in sample.rows() {
                for (axis, next) in axes.iter().zip(&mut next) {
                    let along: f64 = row.iter().zip(axis).map(|(v, a)| v * a).sum();
                    next.iter_mut().zip(row).for_each(|(sum, v)| *sum += along * v);
                }
            }
            let before = values;
            values = [dot(&axes[0], &next[0]), dot(&axes[1], &next[1])];
            axes = next;
            orthonormalise(&mut axes);
            let still = |axis: usize| (values[axis] - before[axis]).abs() <= 1e-6 * values[axis].abs();
            if still(0) && still(1) {
                break;
            }
        }
        for axis in &mut axes {
            // The sign of an axis means nothing; fix it so that a picture is the same whatever the start.
            let largest = axis.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(0.0);
            if largest < 0.0 {
                axis.iter_mut().for_each(|v| *v = -*v);
            }
        }
        let along =
            |row: ndarray::ArrayView1<'_, f64>, axis: &[f64]| row.iter().zip(axis).map(|(v, a)| v * a).sum();
        let projected: Vec<[f64; 2]> =
            sample.rows().into_iter().map(|row| [along(row, &axes[0]), along(row, &axes[1])]).collect();
        let share = |axis: usize| {
            let part: f64 = projected.iter().map(|p| p[axis] * p[axis]).sum();
            if variance > 0.0 && variance.is_finite() { part / variance } else { 0.0 }
        };
        Plane { explained: [share(0), share(1)], mean, axes, sample: projected }
    }

    fn project(&self, point: impl Iterator<Item = f64>) -> [f64; 2] {
        let mut place = [0.0; 2];
        for (j, value) in point.enumerate() {
            for (along, axis) in place.iter_mut().zip(&self.axes) {
                *along += (value - self.mean[j]) * axis[j];
            }
        }
        place
    }
}

/// Gram–Schmidt. An axis without a direction of its own, in one dimension say, becomes zero.
fn orthonormalise(axes: &mut [Vec<f64>; 2]) {
    let normalise = |axis: &mut Vec<f64>, least: f64| {
        let norm = dot(axis, axis).sqrt();
        let factor = if norm > least && norm.is_finite() { 1.0 / norm } else { 0.0 };
        axis.iter_mut().for_each(|v| *v *= factor);
    };
    let [first, second] = axes;
    normalise(first, 0.0);
    let before = dot(second, second).sqrt();
    let overlap = dot(first, second);
    second.iter_mut().zip(first.iter()).for_each(|(v, f)| *v -= overlap * f);
    normalise(second, before * 1e-12);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn text(out: &mut String, class: &str, size: u32, [x, y]: [f64; 2], content: &str) -> std::fmt::Result {
    writeln!(
        out,
        "<text class=\"{class}\" font-size=\"{size}\" x=\"{x}\" y=\"{y}\">{}</text>",
        escaped(content)
    )
}

fn shortened(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.into();
    }
    text.chars().take(letters - 1).chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            // XML has no way to write most control characters.
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// `1234567` as `1,234,567`.
///
/// # Examples
/// ```
/// use flash_kmeans::report::grouped;
///
/// assert_eq!(grouped(1234567), "1,234,567");
/// ```
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array1, array};

    #[test]
    fn principal_axes_of_an_ellipse() {
        // Three times as long along (3, 4)/5 as across it.
        let points = Array2::from_shape_fn((360, 2), |(i, j)| {
            let (sin, cos) = (i as f64).to_radians().sin_cos();
            let (along, across) = (3.0 * cos, sin);
            10.0 + [0.6 * along - 0.8 * across, 0.8 * along + 0.6 * across][j]
        });
        let plane = Plane::of(points);
        assert!((plane.axes[0][0] - 0.6).abs() < 1e-6 && (plane.axes[0][1] - 0.8).abs() < 1e-6);
        assert!((plane.explained[0] - 0.9).abs() < 1e-6 && (plane.explained[1] - 0.1).abs() < 1e-6);
        assert!(dot(&plane.axes[0], &plane.axes[1]).abs() < 1e-12);
    }

    #[test]
    fn degenerate_points_make_a_picture_without_nan() {
        let labels = Array1::zeros(3);
        for points in [array![[1.0f32], [2.0], [4.0]], array![[5.0f32, 5.0], [5.0, 5.0], [5.0, 5.0]]] {
            let centroid = points.slice(ndarray::s![..1, ..]).to_owned();
            let picture = Picture::new(points.view(), labels.view(), centroid.view()).unwrap();
            assert!(!picture.svg().contains("NaN") && !picture.svg().contains("inf"));
        }
    }

    #[test]
    fn text_is_escaped() {
        let points = array![[1.0f32, 2.0], [2.0, 3.0]];
        let picture = Picture::new(points.view(), array![0, 0].view(), array![[1.5, 2.5]].view()).unwrap();
        let html = picture.title("<script>&\"").fact("a<b", "c>d").html();
        assert!(!html.contains("<script>") && html.contains("&lt;script&gt;&amp;&quot;"));
        assert!(html.contains("a&lt;b") && html.contains("c&gt;d"));
    }

    #[test]
    fn arrays_that_do_not_belong_together_are_refused() {
        let points = array![[1.0f32, 2.0], [2.0, 3.0]];
        assert!(Picture::new(points.view(), array![0].view(), array![[1.5, 2.5]].view()).is_err());
        assert!(Picture::new(points.view(), array![0, 1].view(), array![[1.5, 2.5]].view()).is_err());
        assert!(Picture::new(points.view(), array![0, 0].view(), array![[1.5]].view()).is_err());
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1000), grouped(1234567)],
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
