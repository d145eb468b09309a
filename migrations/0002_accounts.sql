CREATE TABLE users (
    id UUID NOT NULL PRIMARY KEY,
    -- lower case
    email TEXT NOT NULL UNIQUE,
    nickname TEXT NOT NULL,
    -- lower case: what signs in
    nickname_key TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id UUID NOT NULL PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    -- sha256 of the key; the key itself is shown once and never stored
    hash TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX api_keys_user ON api_keys (user_id);
