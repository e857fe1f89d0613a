//! Who a session is and what it may do: tokens, keys, rights and resume secrets.
pub mod rights;
