//! The report as a browser shows it, at the width of a phone: the marks are drawn, nothing is wider than the screen,
//! nothing is fetched.
//!
//! The browser is `FLASH_KMEANS_BROWSER`, or the first of chromium, chromium-browser and google-chrome that there is.
//! Without one the test is skipped with a line that says so; `FLASH_KMEANS_REQUIRE_BROWSER=1` makes that a failure.
use flash_kmeans::{Backend, FlashKMeans, report::Picture};
use ndarray::Array2;
use serde_json::Value;
use std::process::Command;

fn browser() -> Option<String> {
    let named = std::env::var("FLASH_KMEANS_BROWSER").ok();
    let usual = ["chromium", "chromium-browser", "google-chrome"].map(String::from);
    let runs = |name: &String| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    named.into_iter().chain(usual).find(runs)
}

/// Shows the page in a frame as wide as a phone and writes what is seen into the wrapper's own page.
const WRAPPER: &str = r#"<!doctype html><meta charset="utf-8"><body><pre id="seen"></pre><script>
const frame = document.createElement("iframe");
frame.style.cssText = "width:360px;height:740px;border:0";
frame.onload = () => {
  const page = frame.contentDocument, of = s => [...page.querySelectorAll(s)];
  const box = e => e.getBoundingClientRect();
  const inside = e => { const b = box(e); return b.width > 0 && b.height > 0 && b.left >= 0 && b.right <= 360; };
  document.getElementById("seen").textContent = JSON.stringify({
    width: page.documentElement.scrollWidth,
    dots: of("path.fk-dots").filter(inside).length,
    dot_moves: of("path.fk-dots").map(e => e.getAttribute("d").split("M").length - 1).reduce((a, b) => a + b, 0),
    centroids: of("circle.fk-ring").filter(inside).length,
    line: of("polyline.fk-line").map(e => e.getTotalLength()),
    line_inside: of("polyline.fk-line").every(inside),
    marks: of("circle.fk-mark").filter(inside).length,
    bars: of(".bar").filter(inside).length,
    facts: of("th[scope=row]").map(e => e.textContent),
    smallest_text: Math.min(...of("svg text:not(.fk-number)").map(e => box(e).height)),
    fetched: frame.contentWindow.performance.getEntriesByType("resource").length,
  });
};
frame.srcdoc = PAGE;
document.body.append(frame);
</script>"#;

#[test]
fn a_browser_draws_every_mark_at_the_width_of_a_phone() {
    let Some(browser) = browser() else {
        let required = std::env::var("FLASH_KMEANS_REQUIRE_BROWSER").is_ok_and(|v| v == "1");
        assert!(!required, "FLASH_KMEANS_REQUIRE_BROWSER is set, and there is no browser");
        println!("skipped: there is no chromium");
        return;
    };
    let points = Array2::from_shape_fn((300, 4), |(row, column)| {
        ((row % 5) * (column + 1)) as f32 * 3.0 + ((row * 37 + column * 11) % 50) as f32 * 0.1
    });
    let model = FlashKMeans::new(5).backend(Backend::Cpu).seed(2).init(flash_kmeans::Init::Random);
    let model = model.fit(points.view()).unwrap();
    assert!(model.n_iter() > 1, "a line needs two iterations");
    let page = Picture::new(points.view(), model.labels().view(), model.centroids().view())
        .unwrap()
        .title("a long title </script> with \"marks\" & more than fits into one line of a phone")
        .fact("points", "300")
        .history(&model.problems()[0].history)
        .html();
    assert_eq!(page.matches("http").count(), page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());

    let folder = tempfile::tempdir().unwrap();
    let wrapper = folder.path().join("wrapper.html");
    let quoted = serde_json::to_string(&page).unwrap().replace("</", "<\\/");
    std::fs::write(&wrapper, WRAPPER.replace("PAGE", &quoted)).unwrap();
    let output = Command::new(&browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .arg(format!("file://{}", wrapper.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let seen = dom.split_once("<pre id=\"seen\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let seen: Value = serde_json::from_str(seen.map_or("", |(seen, _)| seen))
        .unwrap_or_else(|e| panic!("{e}: {dom}\n{}", String::from_utf8_lossy(&output.stderr)));

    assert!(seen["width"].as_u64().unwrap() <= 360, "{seen}");
    assert_eq!((&seen["dots"], &seen["dot_moves"]), (&5.into(), &300.into()), "{seen}");
    assert_eq!((&seen["centroids"], &seen["bars"]), (&5.into(), &5.into()), "{seen}");
    assert_eq!(seen["marks"], model.n_iter(), "{seen}");
    assert!(seen["line"][0].as_f64().unwrap() > 100.0 && seen["line_inside"] == true, "{seen}");
    assert_eq!(seen["facts"], serde_json::json!(["points"]));
    assert!(seen["smallest_text"].as_f64().unwrap() >= 8.0, "{seen}");
    assert_eq!(seen["fetched"], 0, "{seen}");
}
