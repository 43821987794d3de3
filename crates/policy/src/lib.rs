//! Stages, verdicts, and how the verdicts of many judges combine
