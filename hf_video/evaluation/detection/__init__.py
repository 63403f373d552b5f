"""How good detections are: in time, in space and time, moments by text, anomalies. Every number is an official one."""
