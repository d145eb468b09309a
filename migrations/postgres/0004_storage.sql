-- Rows that are rewritten often keep room on their page, so that an update touches no index.
ALTER TABLE thread_heads SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE runs SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE worker_sessions SET (fillfactor = 50);
