//! Answers of a plugin that still hold; pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use coracle_images::RegistryAuth;
use serde::Deserialize;

/// Answers that are kept at most.
const MOST: usize = 1024;

/// For which images an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Scope {
    Image,
    Registry,
    Global,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Image(String),
    Registry(String),
    Global,
}

impl Scope {
    fn key(self, image: &str) -> Key {
        match self {
            Self::Image => Key::Image(image.to_owned()),
            Self::Registry => {
                let registry = image.split('/').next().unwrap_or_default();
                Key::Registry(registry.to_owned())
            }
            Self::Global => Key::Global,
        }
    }
}

/// The answers of one plugin.
#[derive(Debug, Default)]
pub(super) struct Cache {
    answers: HashMap<Key, (Vec<RegistryAuth>, Instant)>,
}

impl Cache {
    /// What holds for an image, the narrowest answer first.
    pub(super) fn get(&self, image: &str, now: Instant) -> Option<Vec<RegistryAuth>> {
        [Scope::Image, Scope::Registry, Scope::Global]
            .iter()
            .filter_map(|scope| self.answers.get(&scope.key(image)))
            .find(|(_, until)| now < *until)
            .map(|(auths, _)| auths.clone())
    }

    /// Keeps an answer for that time.
    pub(super) fn put(
        &mut self,
        (scope, image): (Scope, &str),
        auths: &[RegistryAuth],
        hold: Duration,
        now: Instant,
    ) {
        self.answers.retain(|_, (_, until)| now < *until);
        let Some(until) = now.checked_add(hold).filter(|until| *until > now) else {
            return;
        };
        if self.answers.len() < MOST {
            self.answers
                .insert(scope.key(image), (auths.to_vec(), until));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_for_their_scope_and_time() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let auth = |name: &str| {
            vec![RegistryAuth {
                pattern: "r".to_owned(),
                username: name.to_owned(),
                password: String::new(),
                secret: None,
            }]
        };
        let mut cache = Cache::default();
        cache.put((Scope::Global, "r.example/a"), &auth("all"), minute, now);
        cache.put(
            (Scope::Registry, "r.example/a"),
            &auth("registry"),
            minute * 2,
            now,
        );
        cache.put((Scope::Image, "r.example/a"), &auth("image"), minute, now);
        cache.put(
            (Scope::Image, "r.example/b"),
            &auth("never"),
            Duration::ZERO,
            now,
        );
        for (image, at, found) in [
            ("r.example/a", Duration::ZERO, Some("image")),
            ("r.example/b", Duration::ZERO, Some("registry")),
            ("q.example/a", Duration::ZERO, Some("all")),
            ("r.example/a", minute, Some("registry")),
            ("q.example/a", minute, None),
            ("r.example/a", minute * 2, None),
        ] {
            let got = cache.get(image, now + at);
            assert_eq!(got, found.map(auth), "{image} {at:?}");
        }
        cache.put((Scope::Global, ""), &auth("new"), minute, now + minute * 3);
        assert_eq!(cache.answers.len(), 1, "what is over goes");
    }
}
