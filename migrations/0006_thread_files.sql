-- A thread's files by name, as tools find them.
CREATE INDEX attachments_thread ON attachments (thread_id, name);
