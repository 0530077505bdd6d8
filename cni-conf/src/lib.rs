//! The CNI contract: names, configuration, results, errors, requests and dispatch. Knows no kernel.
