//! What measurements of our own crates print, which need no cluster: a line of JSON each,
//! `{"figure": …, "value": …, "unit": …}`.

use std::process::Command;

use serde_json::Value;

use crate::Row;

/// One of them.
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) name: String,
    /// In the unit below.
    pub(crate) value: f64,
    unit: String,
}

impl Figure {
    fn read(line: &str) -> Option<Self> {
        // Whoever runs a test may have begun the line with its name.
        let figure: Value = serde_json::from_str(line.get(line.find('{')?..)?).ok()?;
        Some(Self {
            name: figure["figure"].as_str()?.to_owned(),
            value: figure["value"].as_f64()?,
            unit: figure["unit"].as_str()?.to_owned(),
        })
    }

    /// The row of the table that it is.
    pub(crate) fn row(&self, aim: &'static str) -> Row {
        let unit = match self.unit.as_str() {
            "ratio" => "×",
            unit => unit,
        };
        Row::new(&self.name, format!("{:.2} {unit}", self.value), aim)
    }
}

/// Prints rows with what is aimed at for some of them.
pub(crate) fn print(figures: &[Figure], aims: &[(&str, &'static str)]) {
    for figure in figures {
        let aim = aims.iter().find(|(of, _)| *of == figure.name);
        figure.row(aim.map_or("", |(_, aim)| aim)).print();
    }
}

/// All that a run of Cargo prints, which must succeed.
pub(crate) fn figures(arguments: &[&str]) -> Vec<Figure> {
    let ran = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{text}{errors}");
    text.lines().filter_map(Figure::read).collect()
}
