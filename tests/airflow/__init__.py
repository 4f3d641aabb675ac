"""kbroker's Airflow executor, proven with the real Airflow: `make test-airflow`."""
