//! Use cases: free functions, one file a noun; permission checks and transactions live here.
