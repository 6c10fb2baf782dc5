//! Resources and namespaces that have objects, each under a number: there are as many numbers as
//! objects, and few places.

use std::collections::HashMap;
use std::sync::Arc;

use kube::core::discovery::ApiResource;

use crate::discovery::resource_name;
use crate::inventory::Tally;

/// A place, for as long as objects are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlaceId(u32);

/// What objects of one resource in one namespace share.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) resource: ApiResource,
    /// Empty for objects of the cluster.
    pub(super) namespace: Arc<str>,
    objects: usize,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// None where a number is to be given again.
    places: Vec<Option<Place>>,
    vacant: Vec<PlaceId>,
    numbers: HashMap<ApiResource, HashMap<Arc<str>, PlaceId>>,
}

impl Places {
    /// One object more is there.
    pub(super) fn enter(&mut self, resource: &ApiResource, namespace: &str) -> PlaceId {
        let known = self.numbers.get(resource).and_then(|of| of.get(namespace));
        let id = match known {
            Some(id) => *id,
            None => self.open(resource, namespace),
        };
        if let Some(place) = self.get_mut(id) {
            place.objects += 1;
        }
        id
    }

    fn open(&mut self, resource: &ApiResource, namespace: &str) -> PlaceId {
        let namespace: Arc<str> = namespace.into();
        let place = Some(Place {
            resource: resource.clone(),
            namespace: namespace.clone(),
            objects: 0,
        });
        let id = match self.vacant.pop() {
            Some(id) => id,
            None => {
                self.places.push(None);
                // There are fewer places than bytes of memory by far.
                PlaceId(u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX))
            }
        };
        if let Some(slot) = self.places.get_mut(id.0 as usize) {
            *slot = place;
        }
        let of = self.numbers.entry(resource.clone()).or_default();
        of.insert(namespace, id);
        id
    }

    /// One object less is there; a place goes with its last.
    pub(super) fn leave(&mut self, id: PlaceId) {
        let Some(place) = self.get_mut(id) else {
            return;
        };
        place.objects = place.objects.saturating_sub(1);
        if place.objects > 0 {
            return;
        }
        let Some(place) = self.places.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        self.vacant.push(id);
        if let Some(of) = self.numbers.get_mut(&place.resource) {
            of.remove(&place.namespace);
            if of.is_empty() {
                self.numbers.remove(&place.resource);
            }
        }
    }

    pub(super) fn get(&self, id: PlaceId) -> Option<&Place> {
        self.places.get(id.0 as usize)?.as_ref()
    }

    fn get_mut(&mut self, id: PlaceId) -> Option<&mut Place> {
        self.places.get_mut(id.0 as usize)?.as_mut()
    }

    pub(super) fn resource(&self, id: PlaceId) -> Option<&ApiResource> {
        self.get(id).map(|place| &place.resource)
    }

    /// What an object that comes or goes there changes in the numbers of its namespace, if it has
    /// one.
    pub(super) fn tally(&self, id: PlaceId, more: bool) -> Option<Tally> {
        let place = self.get(id)?;
        (!place.namespace.is_empty()).then(|| Tally {
            namespace: place.namespace.clone(),
            resource: resource_name(&place.resource),
            more,
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.iter().flatten().count()
    }
}
