import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, it } from 'node:test';
import { identityOf } from '../../src/assets/lock.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { TeacherAnswer, TeacherRequest } from '../../src/contracts/records.ts';
import { ledgerKey, ledgerRequest } from '../../src/ledger/key.ts';
import type { LedgerCall } from '../../src/ledger/ledger.ts';
import { MIGRATIONS } from '../../src/ledger/schema.ts';
import { createSpareSpace } from '../../src/ledger/spare-space.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { temporaryFolder } from '../support/folder.ts';

const hasCode = (code: string) => (error: unknown) => error instanceof StillhouseError && error.code === code;
const identity = { provider: 'https://api.example.com/v1', model: 'gpt-4o-mini' };

const request = (content: string, sampleIndex = 0): TeacherRequest => ({
  id: `train-1-${content}`,
  purpose: 'train',
  sampleIndex,
  task: { kind: 'text', messages: [{ role: 'user', content }], parameters: { maxTokens: 8, temperature: 0 } },
});
const call = (content: string, extra: Partial<LedgerCall> = {}): LedgerCall => ({
  key: ledgerKey(identity, request(content)), ...identity, request: ledgerRequest(request(content)), campaign: 'demo', ...extra,
});
const answer = (text: string): TeacherAnswer => ({
  text,
  labelLogProbs: [Math.fround(-0.125), Math.fround(-2.14)],
  finishReason: 'stop',
  usage: { promptTokens: 100, cachedPromptTokens: 60, completionTokens: 5 },
  costUsd: 0.25,
  latencyMs: 12.5,
  model: 'gpt-4o-mini-2024-07-18',
});

describe('ledger key', () => {
  it('depends on what decides the answer and on nothing else', () => {
    const base = ledgerKey(identity, request('a'));
    assert.match(base, /^[0-9a-f]{64}$/);
    assert.equal(ledgerKey(identity, { ...request('a'), id: 'other', purpose: 'test', row: { id: 'r', input: 'x', origin: 'o' } }), base);
    const reordered = { ...request('a'), task: { parameters: { temperature: 0, maxTokens: 8 }, messages: [{ content: 'a', role: 'user' }], kind: 'text' } } as TeacherRequest;
    assert.equal(ledgerKey(identity, reordered), base);
    const others = [
      ledgerKey(identity, request('b')),
      ledgerKey(identity, request('a', 1)),
      ledgerKey({ ...identity, model: 'gpt-4o' }, request('a')),
      ledgerKey({ ...identity, provider: 'local' }, request('a')),
    ];
    assert.equal(new Set([base, ...others]).size, 5);
  });
});

describe('ledger', () => {
  const folder = temporaryFolder();

  it('gives back what was recorded, in another process too, and ignores a second answer', async () => {
    const path = join(folder, 'a', 'ledger.sqlite');
    const first = createLedger(path);
    const calls = [call('一'), call('b'), call('c')];
    assert.deepEqual(await first.recordIntents(calls), { repeated: [], elsewhere: [] });
    await first.recordAnswers([{ key: calls[0]!.key, answer: answer('正面') }]);
    await first.recordAnswers([{ key: calls[0]!.key, answer: answer('negative') }]);
    const second = createLedger(path);
    const found = await second.lookup(calls.map((each) => each.key));
    assert.deepEqual([...found], [[calls[0]!.key, answer('正面')]]);
    assert.deepEqual(await second.totals(), { calls: 1, open: 2, repeated: 0, promptTokens: 100, completionTokens: 5, costUsd: 0.25, reused: 0, savedUsd: 0, lost: 0, openUsd: 0, lostUsd: 0, reasoningTokens: 0 });
    await first.close();
    await second.close();
  });

  it('tells which calls an earlier process may have paid for', async () => {
    const ledger = createLedger(join(folder, 'b.sqlite'));
    const [a, b, c] = [call('a', { batch: 'one' }), call('b', { batch: 'one' }), call('c', { batch: 'one' })];
    await ledger.recordIntents([a, b, c]);
    await ledger.recordAnswers([{ key: a.key, answer: answer('x') }]);
    await ledger.withdrawIntents([a.key, c.key]);
    assert.deepEqual(await ledger.recordIntents([a, b, c]), { repeated: [b.key], elsewhere: [a.key] }, 'a is answered, c was withdrawn');
    await ledger.recordAnswers([b, c].map(({ key }) => ({ key, answer: answer('y') })));
    assert.deepEqual(await ledger.batchSpending('one'), { usd: 0.75, tokens: 315, reasoningTokens: 0, calls: 3, repeated: 1, lost: { usd: 0, tokens: 0 } });
    assert.deepEqual(await ledger.batchSpending('two'), { usd: 0, tokens: 0, reasoningTokens: 0, calls: 0, repeated: 0, lost: { usd: 0, tokens: 0 } });
    assert.equal((await ledger.totals({ campaign: 'demo' })).calls, 3);
    assert.equal((await ledger.totals({ campaign: 'other' })).calls, 0);
    await ledger.close();
  });

  it('keeps every commit of four writers, one of them killed', async () => {
    const path = join(folder, 'many.sqlite');
    await createLedger(path).close();
    const module = (name: string): string => JSON.stringify(new URL(`../../src/${name}`, import.meta.url).href);
    const script = `
      import { createHash } from 'node:crypto';
      import { createLedger } from ${module('ledger/sqlite-ledger.ts')};
      const [path, name, count] = process.argv.slice(1);
      const ledger = createLedger(path);
      for (let i = 0; i < Number(count); i += 1) {
        const key = createHash('sha256').update(name + i).digest('hex');
        await ledger.recordIntents([{ key, provider: 'p', model: 'm', request: '{}', campaign: name }]);
        await ledger.recordAnswers([{ key, answer: ${JSON.stringify(answer('x'))} }]);
        console.log(i);
      }`;
    const run = (name: string, count: number) => spawn(process.execPath, ['--input-type=module', '-e', script, path, name, String(count)], { stdio: ['ignore', 'pipe', 'inherit'] });
    const finishing = ['a', 'b', 'c'].map((name) => run(name, 40));
    const victim = run('victim', 100_000);
    let confirmed = -1;
    for await (const chunk of victim.stdout) {
      confirmed = Number(String(chunk).trim().split('\n').at(-1));
      if (confirmed >= 20) victim.kill('SIGKILL');
    }
    for (const child of finishing) {
      child.stdout.resume();
      if (child.exitCode === null) await once(child, 'exit');
      assert.equal(child.exitCode, 0);
    }
    const ledger = createLedger(path);
    for (const name of ['a', 'b', 'c']) assert.equal((await ledger.totals({ campaign: name })).calls, 40);
    const { calls, open } = await ledger.totals({ campaign: 'victim' });
    assert.ok(calls >= confirmed + 1, `expected at least ${confirmed + 1} answers of the killed writer, got ${calls}`);
    assert.ok(open <= 1);
    await ledger.close();
  });

  it('says what is wrong with a file that is no ledger or a newer one', async () => {
    const text = join(folder, 'text.sqlite');
    await writeFile(text, 'this is not a database, and it is longer than a header would be');
    assert.throws(() => createLedger(text), hasCode('CORRUPT'));
    const newer = join(folder, 'newer.sqlite');
    await createLedger(newer).close();
    const database = new DatabaseSync(newer);
    database.exec('PRAGMA user_version = 99');
    database.close();
    assert.throws(() => createLedger(newer), /expected a ledger of version \d or older .* got version 99/);
  });

  /** Records intent and answer of one call after the other until it cannot, in a process whose files may not grow beyond 300 KiB: the kernel refuses the write, as a full disk does. */
  function fillDisk(path: string, ledger: string): { readonly recorded: number; readonly intended: number; readonly code: string; readonly message: string } {
    const script = `
      import { createHash } from 'node:crypto';
      import { spawnSync } from 'node:child_process';
      import { createLedger } from ${JSON.stringify(new URL('../../src/ledger/sqlite-ledger.ts', import.meta.url).href)};
      let room = true;
      const ledger = createLedger(${JSON.stringify(path)}${ledger});
      let recorded = 0;
      let intended = 0;
      try {
        for (;;) {
          const key = createHash('sha256').update(String(recorded)).digest('hex');
          await ledger.recordIntents([{ key, provider: 'p', model: 'm', request: '{}', campaign: 'c' }]);
          intended += 1;
          await ledger.recordAnswers([{ key, answer: { ...${JSON.stringify(answer('x'))}, text: 'x'.repeat(20000) } }]);
          recorded += 1;
        }
      } catch (error) {
        console.log(JSON.stringify({ recorded, intended, code: error.code, message: error.message }));
      }`;
    const child = spawnSync('sh', ['-c', 'ulimit -S -f 600; exec "$0" --input-type=module -e "$1"', process.execPath, script], { encoding: 'utf8' });
    return JSON.parse(child.stdout) as ReturnType<typeof fillDisk>;
  }

  it('reports a full disk and keeps what was recorded before', async () => {
    const path = join(folder, 'full.sqlite');
    await createLedger(path).close();
    const outcome = fillDisk(path, ', { spare: { require() {}, release: () => false } }');
    assert.equal(outcome.code, 'DISK_FULL', outcome.message);
    assert.ok(outcome.recorded > 3);
    const ledger = createLedger(path);
    assert.equal((await ledger.totals()).calls, outcome.recorded);
    await ledger.close();
  });

  it('writes the answers of calls in flight into its spare space when the disk fills up, and buys no more', async () => {
    const path = join(folder, 'spare.sqlite');
    await createLedger(path).close();
    const outcome = fillDisk(path, `, { spare: {
      require() { if (!room) throw Object.assign(new Error('no spare'), { code: 'DISK_FULL' }); },
      release() {
        room = false;
        return spawnSync('prlimit', ['--pid', String(process.pid), '--fsize=unlimited']).status === 0;
      },
    } }`);
    assert.equal(outcome.code, 'DISK_FULL', outcome.message);
    assert.equal(outcome.recorded, outcome.intended, 'every call that was intended is answered');
    const ledger = createLedger(path);
    const { calls, open } = await ledger.totals();
    assert.deepEqual([calls, open], [outcome.recorded, 0]);
    await ledger.close();
  });

  it('sets its spare space aside on the disk, and is told when there is no room for it', () => {
    const path = join(folder, 'x.spare');
    const spare = createSpareSpace(path, 1 << 20, 1 << 21);
    spare.require();
    assert.ok(statSync(path).blocks * 512 >= 1 << 20, 'not a sparse file');
    assert.equal(spare.release(), true);
    assert.equal(spare.release(), false);
    assert.ok(!existsSync(path));
    assert.throws(() => createSpareSpace(path, 1, Number.MAX_SAFE_INTEGER).require(), hasCode('DISK_FULL'));
  });

  it('keeps a question for the living claim that asks it, and gives it to the next when the claim is gone', async () => {
    const path = join(folder, 'claims.sqlite');
    const [one, two] = [createLedger(path), createLedger(path)];
    const [a, b] = [call('a', { campaign: 'one' }), call('b', { campaign: 'one' })];
    const first = await one.claim();
    await one.recordIntents([a, b], first);
    const second = await two.claim();
    assert.deepEqual(await two.recordIntents([a, b], second), { repeated: [], elsewhere: [a.key, b.key] });
    assert.deepEqual(await two.askedElsewhere([a.key, b.key], second), new Set([a.key, b.key]));
    assert.deepEqual(await one.recordIntents([a], first), { repeated: [a.key], elsewhere: [] }, 'its own intent is in nobody\'s way');
    await one.recordAnswers([{ key: a.key, answer: answer('x') }]);
    await first[Symbol.asyncDispose]();
    assert.deepEqual(await two.recordIntents([a, b], second), { repeated: [b.key], elsewhere: [a.key] });
    await second[Symbol.asyncDispose]();
    await Promise.all([one.close(), two.close()]);
  });

  it('a repeated intent that is withdrawn leaves the call with the living claim that asks it', async () => {
    const path = join(folder, 'withdrawn.sqlite');
    const [dead, one, two] = [createLedger(path), createLedger(path), createLedger(path)];
    await dead.recordIntents([call('a')]);
    const first = await one.claim();
    assert.deepEqual((await one.recordIntents([call('a')], first)).repeated, [call('a').key]);
    await one.withdrawIntents([call('a').key]);
    const second = await two.claim();
    assert.deepEqual(await two.askedElsewhere([call('a').key], second), new Set([call('a').key]));
    assert.deepEqual(await two.recordIntents([call('a')], second), { repeated: [], elsewhere: [call('a').key] });
    await one.withdrawIntents([call('a').key]);
    assert.deepEqual(await two.recordIntents([call('a')], second), { repeated: [], elsewhere: [] }, 'without an intent it is nobody\'s');
    await Promise.all([dead, one, two].map((ledger) => ledger.close()));
  });

  it('whoever opens a claim removes those of processes that are gone, and of no others', async () => {
    const path = join(folder, 'gone.sqlite');
    const script = `
      import { createLedger } from ${JSON.stringify(new URL('../../src/ledger/sqlite-ledger.ts', import.meta.url).href)};
      const ledger = createLedger(${JSON.stringify(path)});
      for (let i = 0; i < 3; i += 1) await ledger.claim();
      process.kill(process.pid, 'SIGKILL');`;
    for (let i = 0; i < 2; i += 1) assert.equal(spawnSync(process.execPath, ['--input-type=module', '-e', script]).signal, 'SIGKILL');
    const database = new DatabaseSync(path);
    const add = database.prepare("INSERT INTO claims (host, pid, aliveUntilMs) VALUES ('elsewhere', 1, ?)");
    for (const hours of [-25, -23, 1]) add.run(Date.now() + hours * 3_600_000);
    // Of a process that lives, and was asleep beyond its lease.
    database.exec(`INSERT INTO claims (host, pid, startTicks, aliveUntilMs) SELECT '${hostname()}', ${process.pid}, '${identityOf(process.pid)?.startTicks}', 0`);
    const count = (where: string): number => Number(database.prepare(`SELECT COUNT(*) AS n FROM claims WHERE ${where}`).get()?.['n']);
    assert.equal(count('TRUE'), 7, 'the second process has removed those of the first');
    const ledger = createLedger(path);
    await ledger.claim();
    assert.deepEqual([count("host = 'elsewhere'"), count(`pid = ${process.pid}`), count('TRUE')], [2, 2, 4]);
    database.close();
    await ledger.close();
  });

  it('takes over from a process that was killed, at once', async () => {
    const path = join(folder, 'killed.sqlite');
    const { key, ...rest } = call('a');
    const script = `
      import { createLedger } from ${JSON.stringify(new URL('../../src/ledger/sqlite-ledger.ts', import.meta.url).href)};
      const ledger = createLedger(${JSON.stringify(path)});
      await ledger.recordIntents([${JSON.stringify({ key, ...rest })}], await ledger.claim());
      console.log('asked');
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    const ledger = createLedger(path);
    assert.deepEqual(await ledger.askedElsewhere([key]), new Set([key]));
    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.deepEqual(await ledger.recordIntents([{ key, ...rest }], await ledger.claim()), { repeated: [key], elsewhere: [] });
    await ledger.close();
  });

  it('counts attempts of which nothing came, also where their call is answered later, or given up', async () => {
    const path = join(folder, 'losses.sqlite');
    const ledger = createLedger(path);
    const [a, b] = [call('a', { batch: 'one' }), call('b', { batch: 'one' })];
    await ledger.recordIntents([a, b]);
    await ledger.recordLosses([a, b, a].map(({ key }) => ({ key, bound: { usd: 0.5, tokens: 100 } })));
    await ledger.recordAnswers([{ key: a.key, answer: { ...answer('x'), note: 'words', reasoning: 'thought', usage: { promptTokens: 100, cachedPromptTokens: 0, completionTokens: 5, reasoningTokens: 3 } } }]);
    await ledger.withdrawIntents([b.key]);
    await ledger.close();
    const again = createLedger(path);
    assert.deepEqual(await again.batchSpending('one'), { usd: 0.25, tokens: 105, reasoningTokens: 3, calls: 1, repeated: 0, lost: { usd: 1.5, tokens: 300 } });
    assert.deepEqual((await again.totals()).lost, 3);
    const found = (await again.lookup([a.key])).get(a.key);
    assert.deepEqual([found?.note, found?.reasoning, found?.usage.reasoningTokens], ['words', 'thought', 3]);
    await again.close();
  });

  it('counts an attempt that died with its process at its own bound, for the batch that made it', async () => {
    const path = join(folder, 'died.sqlite');
    const dead = createLedger(path);
    const one = (content: string, usd: number): LedgerCall => call(content, { batch: 'one', campaign: 'one', purpose: 'train', bound: { usd, tokens: 100 * usd } });
    const calls = [one('a', 1), one('b', 2), one('c', 4), one('d', 8), one('e', 16)];
    await dead.recordIntents(calls);
    await dead.recordAnswers([{ key: calls[0]!.key, answer: answer('x') }]);
    await dead.withdrawIntents([calls[1]!.key]);
    await dead.recordLosses([{ key: calls[2]!.key, bound: { usd: 4, tokens: 400 } }]);
    await dead.close();
    const ledger = createLedger(path);
    // Dearer by now: what the first attempt may have cost stays.
    await ledger.recordIntents(calls.slice(0, 3).map((each) => ({ ...each, bound: { usd: 32, tokens: 3_200 } })));
    assert.deepEqual((await ledger.batchSpending('one')).lost, { usd: 8, tokens: 800 }, 'c was lost once, and died in its second attempt');
    const { bound: _none, ...unbound } = calls[4]!;
    await ledger.recordIntents([calls[3]!, unbound].map((each) => ({ ...each, batch: 'two', campaign: 'two' })));
    assert.deepEqual((await ledger.batchSpending('one')).lost, { usd: 16, tokens: 1_600 }, 'who asks next does not pay for it; what has no bound costs nothing');
    assert.deepEqual((await ledger.batchSpending('two')).lost, { usd: 0, tokens: 0 });
    assert.deepEqual((await ledger.usage()).map(({ campaign, lost, lostUsd }) => [campaign, lost, lostUsd]), [['one', 3, 16], ['two', 0, 0]]);
    await ledger.close();
  });

  it('an intent of an older file that is repeated counts at the bound that it has now', async () => {
    const path = join(folder, 'unbound.sqlite');
    const database = new DatabaseSync(path);
    for (const step of MIGRATIONS.slice(0, 3)) database.exec(step);
    database.exec("PRAGMA user_version = 3; INSERT INTO names VALUES (1, 'http://x/v1'), (2, 'm'), (3, 'old')");
    const { key, ...asked } = call('a');
    database.prepare("INSERT INTO calls (key, provider, model, campaign, request, intents, intendedAtMs) VALUES (?, 1, 2, 3, x'00', 1, 1)").run(Buffer.from(key, 'hex'));
    database.close();
    const ledger = createLedger(path);
    await ledger.recordIntents([{ key, ...asked, bound: { usd: 0.25, tokens: 10 } }]);
    const { lost, lostUsd } = await ledger.totals({ campaign: 'old' });
    assert.deepEqual([lost, lostUsd], [1, 0.25]);
    await ledger.close();
  });

  it('counts what was saved by reuse, by campaign, model and purpose', async () => {
    const ledger = createLedger(join(folder, 'usage.sqlite'));
    const calls = ['a', 'b', 'c'].map((content) => call(content, { campaign: 'one', batch: 'one 0-3', purpose: content === 'c' ? 'test' : 'train' }));
    await ledger.recordIntents(calls);
    await ledger.recordAnswers(calls.slice(0, 2).map(({ key }) => ({ key, answer: answer('x') })));
    const use = { batch: 'two 0-3', campaign: 'two', keys: calls.map(({ key }) => ({ key, purpose: 'train' as const })) };
    await ledger.recordAnswers([{ key: calls[2]!.key, answer: answer('y') }]);
    for (let again = 0; again < 2; again += 1) await ledger.recordReuse(use);
    await ledger.recordReuse({ ...use, batch: 'one 0-3', campaign: 'one' });
    const nothing = { calls: 0, open: 0, repeated: 0, promptTokens: 0, completionTokens: 0, costUsd: 0, reused: 0, savedUsd: 0, lost: 0, openUsd: 0, lostUsd: 0, reasoningTokens: 0 };
    const { model } = identity;
    assert.deepEqual(await ledger.usage(), [
      { campaign: 'one', model, purpose: 'test', ...nothing, calls: 1, promptTokens: 100, completionTokens: 5, costUsd: 0.25 },
      { campaign: 'one', model, purpose: 'train', ...nothing, calls: 2, promptTokens: 200, completionTokens: 10, costUsd: 0.5 },
      { campaign: 'two', model, purpose: 'train', ...nothing, reused: 3, savedUsd: 0.75 },
    ]);
    assert.deepEqual((await ledger.usage({ campaign: 'two' })).map(({ reused }) => reused), [3]);
    const { reused, savedUsd, costUsd } = await ledger.totals();
    assert.deepEqual([reused, savedUsd, costUsd], [3, 0.75, 0.75]);
    await ledger.close();
  });

  it('reads and extends a file of the first version', async () => {
    const path = join(folder, 'first.sqlite');
    const database = new DatabaseSync(path);
    database.exec(MIGRATIONS[0]!);
    database.exec("PRAGMA user_version = 1; INSERT INTO names VALUES (1, 'http://x/v1'), (2, 'm'), (3, 'old')");
    const { key } = call('a');
    database.prepare('INSERT INTO calls VALUES (?, 1, 2, 3, NULL, x\'00\', 1, 1)').run(Buffer.from(key, 'hex'));
    database.prepare("INSERT INTO answers VALUES (?, 'yes', NULL, 'stop', 1, 0, 1, 0.5, 1, 2, 1)").run(Buffer.from(key, 'hex'));
    database.close();
    const ledger = createLedger(path);
    assert.equal((await ledger.lookup([key])).get(key)?.text, 'yes');
    assert.deepEqual((await ledger.usage()).map(({ campaign, purpose, costUsd }) => [campaign, purpose, costUsd]), [['old', undefined, 0.5]]);
    await ledger.recordReuse({ batch: 'new', campaign: 'new', keys: [{ key, purpose: 'train' }] });
    assert.equal((await ledger.totals({ campaign: 'new' })).savedUsd, 0.5);
    await ledger.close();
  });
});
