//! Rules that several kinds share: pod templates, selectors, resources. Pure functions from a
//! part of an object and its path to field errors.
