//! Objects, selectors, quantities, Status, field errors, patches and tables of the Kubernetes API.
