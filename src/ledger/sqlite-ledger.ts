/** The ledger in one SQLite file that several processes read and write. */
import type { DatabaseSync, SQLInputValue, StatementSync } from 'node:sqlite';
import { deflateRawSync } from 'node:zlib';
import type { TeacherAnswer } from '../contracts/records.ts';
import type { Cost } from '../contracts/state.ts';
import { isGone, isLiving, LEASE_MS, ownClaim, RENEW_EVERY_MS } from './claims.ts';
import { createFollowerBook } from './followers.ts';
import type { FollowerBook } from './followers.ts';
import { GroupedWrites } from './grouped-writes.ts';
import type { BatchSpending, Claim, Ledger, LedgerCall, LedgerKey, LedgerPurpose, LedgerTotals, LedgerUsage, RecordedIntents } from './ledger.ts';
import { answerOf, BOUGHT_SUMS, keyBytes, LOST_SUMS, packLogProbs, REUSED_SUMS, totalsOf } from './rows.ts';
import type { Row } from './rows.ts';
import { asLedgerError, openDatabase } from './schema.ts';
import { createSpareSpace, NO_SPARE } from './spare-space.ts';
import type { SpareSpace } from './spare-space.ts';
import { BOUGHT, GROUP, groupBy, LOST, REUSED, STATEMENTS } from './statements.ts';
import { createSubmissionBook } from './submissions.ts';
import type { SubmissionBook } from './submissions.ts';

class SqliteLedger implements Ledger {
  readonly #path: string;
  readonly #database: DatabaseSync;
  readonly #spare: SpareSpace;
  readonly #statements: Readonly<Record<keyof typeof STATEMENTS, StatementSync>>;
  readonly #names = new Map<string, number>();
  readonly #renewals = new Set<NodeJS.Timeout>();
  readonly submissions: SubmissionBook;
  readonly followers: FollowerBook;
  readonly #writes: GroupedWrites;

  constructor(path: string, database: DatabaseSync, spare: SpareSpace) {
    this.#path = path;
    this.#database = database;
    this.#spare = spare;
    this.#statements = Object.fromEntries(Object.entries(STATEMENTS).map(([name, sql]) => [name, database.prepare(sql)])) as Record<keyof typeof STATEMENTS, StatementSync>;
    // A transaction that is taken back takes the names of its rows with it.
    this.#writes = new GroupedWrites(database, path, spare, () => this.#names.clear());
    const commit = <T>(work: () => T): Promise<T> => this.#writes.add(work);
    this.followers = createFollowerBook({ database, commit, idOf: (name) => this.#idOf(name) });
    this.submissions = createSubmissionBook({
      database,
      read: (work) => this.#guarded(work),
      commit,
      idOf: (name) => this.#idOf(name),
      intend: (calls, claim) => {
        const record = this.#intend(calls, claim);
        return () => record().elsewhere;
      },
      lives: (id, own) => id !== own.id && isLiving(this.#statements.claim.get(id), Date.now()),
    });
  }

  async lookup(keys: readonly LedgerKey[]): Promise<ReadonlyMap<LedgerKey, TeacherAnswer>> {
    return this.#guarded(() => {
      const found = new Map<LedgerKey, TeacherAnswer>();
      for (const key of new Set(keys)) {
        const row = this.#statements.answer.get(keyBytes(key));
        if (row !== undefined) found.set(key, answerOf(row));
      }
      return found;
    });
  }

  async claim(): Promise<Claim> {
    const { host, pid, startTicks } = ownClaim();
    const id = await this.#writes.add(() => {
      this.#dropClaimsOfTheDead();
      return Number(this.#statements.addClaim.get(host, pid, startTicks, Date.now() + LEASE_MS)?.['id']);
    });
    const renewal = setInterval(() => {
      // One that fails is followed by another well before the lease ends.
      this.#writes.add(() => this.#statements.renewClaim.run(Date.now() + LEASE_MS, id)).catch(() => undefined);
    }, RENEW_EVERY_MS).unref();
    this.#renewals.add(renewal);
    return {
      id,
      [Symbol.asyncDispose]: async () => {
        clearInterval(renewal);
        this.#renewals.delete(renewal);
        if (this.#database.isOpen) await this.#writes.add(() => this.#statements.dropClaim.run(id));
      },
    };
  }

  async askedElsewhere(keys: readonly LedgerKey[], claim?: Claim): Promise<ReadonlySet<LedgerKey>> {
    return this.#guarded(() => {
      const held = this.#heldByOthers(claim);
      return new Set(keys.filter((key) => this.#statements.isAnswered.get(keyBytes(key)) === undefined && held(keyBytes(key))));
    });
  }

  async recordIntents(calls: readonly LedgerCall[], claim?: Claim): Promise<RecordedIntents> {
    if (calls.length === 0) return { repeated: [], elsewhere: [] };
    return this.#writes.add(this.#intend(calls, claim));
  }

  /** The work of recording intents, for a transaction. */
  #intend(calls: readonly LedgerCall[], claim: Claim | undefined): () => RecordedIntents {
    this.#guarded(() => this.#spare.require());
    const requests = calls.map((call) => deflateRawSync(call.request));
    return () => {
      const held = this.#heldByOthers(claim);
      const repeated: LedgerKey[] = [];
      const elsewhere: LedgerKey[] = [];
      calls.forEach((call, index) => {
        const key = keyBytes(call.key);
        if (this.#statements.isAnswered.get(key) !== undefined || held(key)) {
          elsewhere.push(call.key);
          return;
        }
        const { bound } = call;
        if (bound !== undefined) this.#statements.addDied.run(key, bound.usd, bound.tokens, Date.now());
        const row = this.#statements.addIntent.get(
          key, this.#idOf(call.provider), this.#idOf(call.model), this.#idOf(call.campaign), this.#idOrNull(call.batch), this.#idOrNull(call.purpose), claim?.id ?? null, requests[index] ?? null, Date.now(),
          bound?.usd ?? null, bound?.tokens ?? null,
        );
        if (Number(row?.['intents']) > 1) repeated.push(call.key);
      });
      return { repeated, elsewhere };
    };
  }

  async recordAnswers(answers: readonly { readonly key: LedgerKey; readonly answer: TeacherAnswer }[]): Promise<void> {
    if (answers.length === 0) return;
    await this.#writes.add(() => {
      for (const { key, answer } of answers) {
        const { usage } = answer;
        this.#statements.addAnswer.run(
          keyBytes(key), answer.text, packLogProbs(answer.labelLogProbs), answer.softTargets === undefined ? null : Buffer.from(answer.softTargets, 'base64'), answer.finishReason,
          usage.promptTokens, usage.cachedPromptTokens, usage.completionTokens,
          answer.costUsd, answer.latencyMs, this.#idOf(answer.model), Date.now(), usage.reasoningTokens ?? null, answer.reasoning ?? null, answer.note ?? null,
        );
      }
    });
  }

  async recordLosses(losses: readonly { readonly key: LedgerKey; readonly bound: Cost }[]): Promise<void> {
    if (losses.length === 0) return;
    await this.#writes.add(() => {
      for (const { key, bound } of losses) this.#statements.addLoss.run(keyBytes(key), bound.usd, bound.tokens, Date.now());
    });
  }

  async raiseBounds(bounds: readonly { readonly key: LedgerKey; readonly bound: Cost }[]): Promise<void> {
    if (bounds.length === 0) return;
    await this.#writes.add(() => {
      for (const { key, bound } of bounds) this.#statements.raiseBound.run(keyBytes(key), bound.usd, bound.tokens);
    });
  }

  async withdrawIntents(keys: readonly LedgerKey[]): Promise<void> {
    if (keys.length === 0) return;
    await this.#writes.add(() => {
      for (const key of keys.map(keyBytes)) {
        this.#statements.lessIntent.run(key);
        this.#statements.dropIntent.run(key);
      }
    });
  }

  async recordReuse({ batch, campaign, keys }: Parameters<Ledger['recordReuse']>[0]): Promise<void> {
    if (keys.length === 0) return;
    await this.#writes.add(() => {
      for (const { key, purpose } of keys) this.#statements.addReuse.run(this.#idOf(batch), keyBytes(key), this.#idOf(campaign), this.#idOf(purpose));
    });
  }

  async batchSpending(batch: string): Promise<BatchSpending> {
    return this.#guarded(() => {
      const ofBatch = 'WHERE c.batch = (SELECT id FROM names WHERE name = ?)';
      const { costUsd, promptTokens, completionTokens, reasoningTokens, calls, repeated } = totalsOf(this.#one(`SELECT ${BOUGHT_SUMS} ${BOUGHT} ${ofBatch}`, batch));
      const lost = this.#one(`SELECT ${LOST_SUMS} ${LOST} ${ofBatch}`, batch);
      return { usd: costUsd, tokens: promptTokens + completionTokens, reasoningTokens, calls, repeated, lost: { usd: Number(lost?.['lostUsd'] ?? 0), tokens: Number(lost?.['lostTokens'] ?? 0) } };
    });
  }

  async totals({ campaign }: { readonly campaign?: string } = {}): Promise<LedgerTotals> {
    return this.#guarded(() => {
      const where = (table: string): string => (campaign === undefined ? '' : `WHERE ${table}.campaign = (SELECT id FROM names WHERE name = ?)`);
      const values = campaign === undefined ? [] : [campaign];
      return totalsOf(...([[BOUGHT_SUMS, BOUGHT, 'c'], [LOST_SUMS, LOST, 'c'], [REUSED_SUMS, REUSED, 'u']] as const).map(([sums, from, table]) => this.#one(`SELECT ${sums} ${from} ${where(table)}`, ...values)));
    });
  }

  async usage({ campaign }: { readonly campaign?: string } = {}): Promise<readonly LedgerUsage[]> {
    return this.#guarded(() => {
      const where = campaign === undefined ? '' : 'WHERE p.name = ?';
      const values = campaign === undefined ? [] : [campaign];
      const all = (sums: string, from: string, table: 'c' | 'u'): readonly Row[] =>
        this.#database.prepare(`SELECT ${sums}${GROUP} ${from} ${groupBy(table)} ${where} GROUP BY p.name, m.name, w.name`).all(...values);
      const rows = [...all(BOUGHT_SUMS, BOUGHT, 'c'), ...all(LOST_SUMS, LOST, 'c'), ...all(REUSED_SUMS, REUSED, 'u')];
      const groups = Map.groupBy(rows, (row) => [row['campaign'], row['model'], row['purpose']].join('\n'));
      return [...groups].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, members]) => {
        const { campaign: name, model, purpose } = members[0] ?? {};
        return { campaign: String(name), model: String(model), ...(typeof purpose === 'string' ? { purpose: purpose as LedgerPurpose } : {}), ...totalsOf(...members) };
      });
    });
  }

  async close(): Promise<void> {
    for (const renewal of this.#renewals) clearInterval(renewal);
    this.#writes.flush();
    if (this.#database.isOpen) this.#database.close();
  }

  #one(sql: string, ...values: readonly SQLInputValue[]): Row | undefined {
    return this.#database.prepare(sql).get(...values);
  }

  #dropClaimsOfTheDead(): void {
    const nowMs = Date.now();
    for (const claim of this.#statements.claims.all()) if (isGone(claim, nowMs)) this.#statements.dropClaim.run(Number(claim['id']));
  }

  /** Whether an open call is in a provider's batch, or asked by a living claim that is not `own`; each claim is looked for once. */
  #heldByOthers(own: Claim | undefined): (key: Uint8Array) => boolean {
    const known = new Map<number, boolean>();
    const nowMs = Date.now();
    return (key) => {
      const holder = this.#statements.holderOf.get(key);
      if (holder === undefined) return false;
      if (holder['submission'] !== null) return true;
      if (holder['id'] === null) return false;
      const id = Number(holder['id']);
      if (id === own?.id) return false;
      const living = known.get(id) ?? isLiving(holder, nowMs);
      known.set(id, living);
      return living;
    };
  }

  #idOrNull(name: string | undefined): number | null {
    return name === undefined ? null : this.#idOf(name);
  }

  #idOf(name: string): number {
    const cached = this.#names.get(name);
    if (cached !== undefined) return cached;
    const known = this.#statements.nameId.get(name)?.['id'];
    if (known === undefined) return Number(this.#statements.addName.run(name).lastInsertRowid);
    // Only what an earlier transaction has made durable: one that is rolled back takes its names with it.
    this.#names.set(name, Number(known));
    return Number(known);
  }

  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw asLedgerError(error, this.#path);
    }
  }
}

const IN_MEMORY = ':memory:';

export interface LedgerOptions {
  /** Default: a file beside the ledger. */
  readonly spare?: SpareSpace;
}

/** Opens the ledger at `path`, made when absent. `labelLogProbs` are kept as float32. */
export function createLedger(path: string, options: LedgerOptions = {}): Ledger {
  try {
    return new SqliteLedger(path, openDatabase(path), options.spare ?? (path === IN_MEMORY ? NO_SPARE : createSpareSpace(`${path}.spare`)));
  } catch (error) {
    throw asLedgerError(error, path);
  }
}
