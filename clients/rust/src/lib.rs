//! A client for Skywave nodes.
