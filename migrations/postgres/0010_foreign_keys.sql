-- A row that is appended is checked against its thread or run once more by a foreign key, which is a lookup and a lock a row: a quarter of
-- what a run costs here. Who appends holds the lock of the thread's head, or of the run, in the same transaction: both are there until it
-- ends. What a foreign key does when the thread or run goes, a trigger does.
ALTER TABLE run_events DROP CONSTRAINT run_events_thread_id_fkey;
ALTER TABLE messages DROP CONSTRAINT messages_thread_id_fkey;
ALTER TABLE run_steps DROP CONSTRAINT run_steps_run_id_fkey;

CREATE FUNCTION forget_thread() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM run_events WHERE thread_id = OLD.id;
    DELETE FROM messages WHERE thread_id = OLD.id;
    RETURN NULL;
END $$;
-- After those of the foreign keys, which go by name too and begin with a capital: the head's row is locked by then.
CREATE TRIGGER threads_forget AFTER DELETE ON threads FOR EACH ROW EXECUTE FUNCTION forget_thread();

CREATE FUNCTION forget_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM run_steps WHERE run_id = OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER runs_forget AFTER DELETE ON runs FOR EACH ROW EXECUTE FUNCTION forget_run();
