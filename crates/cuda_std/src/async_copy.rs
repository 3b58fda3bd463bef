//! Copies from global to shared memory that bypass registers.
