//! The Skywave node as a library: everything but the command line.
