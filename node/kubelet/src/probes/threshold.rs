//! How many results in a row settle a probe.

/// Counts results; pure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threshold {
    success: u32,
    failure: u32,
    last: Option<bool>,
    run: u32,
}

impl Threshold {
    /// Counts of the probe's spec; what is absent or below 1 is the API's default.
    pub(crate) fn new(success: Option<i32>, failure: Option<i32>) -> Self {
        let at_least = |value: Option<i32>, default: u32| {
            let value = value.and_then(|value| u32::try_from(value).ok());
            value.filter(|value| *value > 0).unwrap_or(default)
        };
        Self {
            success: at_least(success, 1),
            failure: at_least(failure, 3),
            last: None,
            run: 0,
        }
    }

    /// Takes a result; gives it back once it has come often enough in a row.
    pub(crate) fn settle(&mut self, success: bool) -> Option<bool> {
        self.run = match self.last == Some(success) {
            true => self.run.saturating_add(1),
            false => 1,
        };
        self.last = Some(success);
        let needed = match success {
            true => self.success,
            false => self.failure,
        };
        (self.run >= needed).then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_settle_after_so_many_in_a_row() {
        let table = [
            (None, None, "s", "s"),
            (None, None, "ffsfff", "..s..f"),
            (Some(2), Some(1), "sfss", ".f.s"),
            (Some(0), Some(-1), "sff", "s.."),
        ];
        for (success, failure, results, expected) in table {
            let mut threshold = Threshold::new(success, failure);
            let settled: String = results
                .chars()
                .map(|c| match threshold.settle(c == 's') {
                    Some(true) => 's',
                    Some(false) => 'f',
                    None => '.',
                })
                .collect();
            assert_eq!(settled, expected, "{results}");
        }
    }
}
