//! A picture of a clustering.
