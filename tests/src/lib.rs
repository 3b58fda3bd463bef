//! The float64 reference and the generators that the tests share.
