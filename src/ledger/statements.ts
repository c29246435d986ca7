/** The ledger's SQL: what is prepared once, and the tables that sums are taken of. */

export const STATEMENTS = {
  answer: 'SELECT a.*, n.name AS model FROM answers a JOIN names n ON n.id = a.model WHERE a.key = ?',
  isAnswered: 'SELECT 1 FROM answers WHERE key = ?',
  addName: 'INSERT INTO names (name) VALUES (?) ON CONFLICT DO NOTHING',
  nameId: 'SELECT id FROM names WHERE name = ?',
  addClaim: 'INSERT INTO claims (host, pid, startTicks, aliveUntilMs) VALUES (?, ?, ?, ?) RETURNING id',
  renewClaim: 'UPDATE claims SET aliveUntilMs = ? WHERE id = ?',
  dropClaim: 'DELETE FROM claims WHERE id = ?',
  holderOf: 'SELECT c.submission, k.* FROM calls c LEFT JOIN claims k ON k.id = c.claim WHERE c.key = ?',
  claim: 'SELECT * FROM claims WHERE id = ?',
  claims: 'SELECT * FROM claims',
  // The batch that tries last pays: an earlier one that died without an answer settles nothing for this call.
  addIntent: `INSERT INTO calls (key, provider, model, campaign, batch, purpose, claim, request, intents, intendedAtMs, boundUsd, boundTokens) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET intents = intents + 1, campaign = excluded.campaign, batch = excluded.batch, purpose = excluded.purpose, claim = excluded.claim,
    boundUsd = excluded.boundUsd, boundTokens = excluded.boundTokens RETURNING intents`,
  addAnswer: `INSERT INTO answers (key, text, labelLogProbs, softTargets, finishReason, promptTokens, cachedPromptTokens, completionTokens, costUsd, latencyMs, model, answeredAtMs, reasoningTokens, reasoning, note)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
  addLoss: 'INSERT INTO losses SELECT key, provider, model, campaign, batch, purpose, ?2, ?3, ?4 FROM calls WHERE key = ?1',
  // An intent of a file that knew no bounds: the same question costs at most as much now.
  addDied: `INSERT INTO losses SELECT key, provider, model, campaign, batch, purpose, COALESCE(boundUsd, ?2), COALESCE(boundTokens, ?3), ?4 FROM calls WHERE key = ?1 AND intents > 0`,
  raiseBound: 'UPDATE calls SET boundUsd = MAX(COALESCE(boundUsd, 0), ?2), boundTokens = MAX(COALESCE(boundTokens, 0), ?3) WHERE key = ?1',
  // While an intent is left the call is held by whoever holds it: a living claim still asks it.
  lessIntent: 'UPDATE calls SET intents = intents - 1, claim = CASE WHEN intents > 1 THEN claim END WHERE key = ? AND NOT EXISTS (SELECT 1 FROM answers a WHERE a.key = calls.key)',
  dropIntent: 'DELETE FROM calls WHERE key = ? AND intents <= 0',
  addReuse: 'INSERT INTO reuses (batch, key, campaign, purpose) SELECT ?1, key, ?3, ?4 FROM calls WHERE key = ?2 AND batch IS NOT ?1 ON CONFLICT DO NOTHING',
} as const;

export const BOUGHT = 'FROM calls c LEFT JOIN answers a ON a.key = c.key';
export const LOST = 'FROM losses c';
export const REUSED = 'FROM reuses u JOIN answers a ON a.key = u.key JOIN calls c ON c.key = u.key';
export const GROUP = `, p.name AS campaign, m.name AS model, w.name AS purpose`;
export const groupBy = (table: 'c' | 'u'): string => `JOIN names p ON p.id = ${table}.campaign JOIN names m ON m.id = c.model LEFT JOIN names w ON w.id = ${table}.purpose`;
