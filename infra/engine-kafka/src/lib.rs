//! The log as an Apache Kafka topic.
