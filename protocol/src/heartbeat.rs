//! RTT estimation and the adaptive heartbeat policy; time is an argument.
