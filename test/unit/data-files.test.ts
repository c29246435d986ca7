import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { readSpecFile } from '../../src/cli/spec-file.ts';
import { readRows } from '../../src/dataset/import.ts';
import { readTrainingRows } from '../../src/dataset/training-rows.ts';
import { temporaryFolder } from '../support/folder.ts';

const folder = temporaryFolder();
async function written(name: string, content: string | Buffer): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, content);
  return path;
}
/** `input` or `input → gold`, by line. */
async function rows(name: string, content: string | Buffer): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const { input, gold, origin } of readRows(await written(name, content))) found.push(`${origin.split(':')[1]} ${input}${gold === undefined ? '' : ` → ${gold}`}`);
  return found;
}
async function learned(name: string, content: string | Buffer, system?: string): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const { messages } of readTrainingRows(await written(name, content), { instruction: '{input}', system })) found.push(messages.map((message) => `${message.role}: ${message.content}`).join(' | '));
  return found;
}
async function refuses(reading: Promise<unknown>, message: RegExp): Promise<void> {
  await assert.rejects(reading, (error: unknown) => {
    assert.ok(error instanceof StillhouseError && error.code === 'BAD_INPUT', String(error));
    assert.match(error.message, message);
    return true;
  });
}

test('lines end at line feeds and carriage returns alone', async () => {
  for (const mark of ['\u2028', '\u2029', '\u0085', '\v', '\f']) {
    const json = JSON.stringify({ input: 'x' }).replace('x', `one${mark === '\v' || mark === '\f' ? JSON.stringify(mark).slice(1, -1) : mark}line`);
    assert.deepEqual(await rows('a.jsonl', `${json}\r\n${json}`), [`1 one${mark}line`, `2 one${mark}line`]);
    assert.deepEqual(await rows('a.txt', `one${mark}line\rtwo\n`), [`1 one${mark}line`, '2 two']);
    assert.deepEqual(await rows('a.csv', `input,gold\none${mark}line,g\n`), [`2 one${mark}line → g`]);
    assert.deepEqual(await learned('b.jsonl', `{"input":"a${mark < ' ' ? ' ' : mark}b","output":"c"}`), [`user: a${mark < ' ' ? ' ' : mark}b | assistant: c`]);
  }
});

test('UTF-8 with its mark and UTF-16 are read; other bytes are refused with their place, never replaced', async () => {
  const table = 'input,gold\r\nDas Café,gut\r\n"größer, 你好",schlecht\r\n';
  const expected = ['2 Das Café → gut', '3 größer, 你好 → schlecht'];
  assert.deepEqual(await rows('u.csv', `\uFEFF${table}`), expected);
  assert.deepEqual(await rows('le.csv', Buffer.from(`\uFEFF${table}`, 'utf16le')), expected);
  assert.deepEqual(await rows('be.csv', Buffer.from(`\uFEFF${table}`, 'utf16le').swap16()), expected);
  const windows = Buffer.from('input,gold\nok \uFFFD,g\nDas Caf', 'utf8');
  await refuses(rows('w.csv', Buffer.concat([windows, Buffer.from([0xe9]), Buffer.from(',gut\n')])), /w\.csv:3: expected UTF-8, got byte 0xE9 in column 8 \("é", if the file is Windows-1252\): save it as UTF-8/);
  assert.deepEqual(await rows('r.txt', 'a real \uFFFD stays\n'), ['1 a real \uFFFD stays']);
  await refuses(rows('x.txt', Buffer.from('a\nb', 'utf16le')), /x\.txt:1: expected text, got a NUL character; .*UTF-16/);
  await refuses(rows('cut.txt', Buffer.from('\uFEFFab\uD83D', 'utf16le')), /expected UTF-16/);
  // A character that lies across two chunks of the stream.
  const long = `${'x'.repeat(65_535)}é${'y'.repeat(200_000)}`;
  assert.deepEqual(await rows('long.jsonl', JSON.stringify({ input: long })), [`1 ${long}`]);
});

test('a campaign file in another encoding is refused as a data file is', async () => {
  const path = await written('spec.yaml', Buffer.from('name: test\ntask: { description: Gef\xfchle }\n', 'latin1'));
  await refuses(readSpecFile(path), /spec\.yaml:2: expected UTF-8, got byte 0xFC/);
  await refuses(readSpecFile(await written('spec16.yaml', Buffer.from('\uFEFFname: NO\n', 'utf16le'))), /spec16\.yaml: .*problems\n.*name: expected/s);
});

test('archives and workbooks are refused by what they are', async () => {
  await refuses(rows('a.jsonl', gzipSync('{"input":"x"}')), /a\.jsonl: expected text in UTF-8, got a gzip archive: unpack it/);
  await refuses(rows('a.csv', 'PK\x03\x04rest'), /an Excel workbook.*CSV UTF-8/);
  await refuses(rows('b.csv', 'PAR1rest'), /a Parquet file/);
  await refuses(rows('a.xlsx', 'x'), /expected a dataset ending in .*\.csv/);
});

test('tables are read with each delimiter, line end and quoting that programs write', async () => {
  const expected = ['2 a,b → p', '3 c → n'];
  assert.deepEqual(await rows('comma.csv', 'input,gold\n"a,b",p\nc,n\n'), expected);
  assert.deepEqual(await rows('semicolon.csv', 'input;gold\r\na,b;p\r\nc;n\r\n'), expected);
  assert.deepEqual(await rows('name.csv', 'Input;gold;a, b, c, d\na,b;p;\nc;n;7,5\n'), expected);
  assert.deepEqual(await rows('tab.csv', 'input\tgold\na,b\tp\nc\tn'), expected);
  assert.deepEqual(await rows('tab.tsv', 'input\tgold\na,b\tp\nc\tn'), expected);
  assert.deepEqual(await rows('mac.csv', 'input,gold\r"a,b",p\rc,n\r'), expected);
  assert.deepEqual(await rows('sep.csv', 'sep=;\r\ninput;gold\r\na,b;p\r\nc;n\r\n'), ['3 a,b → p', '4 c → n']);
  assert.deepEqual(await rows('names.csv', ' Input , GOLD ,"id, old"\nx,1,"7,5"\n'), ['2 x → 1']);
  assert.deepEqual(await rows('breaks.csv', 'input,gold\r\n"one\r\ntwo ""q""",p\r\n\r\n,\r\n5" screen,n\r\n'), ['2 one\r\ntwo "q" → p', '6 5" screen → n']);
  assert.deepEqual(await rows('surplus.csv', 'input,gold\nx,p,,\n'), ['2 x → p']);
  assert.deepEqual(await rows('one.csv', 'input\na\n\nb'), ['2 a', '4 b']);
});

test('a table that loses something when it is read is refused with its line', async () => {
  await refuses(rows('blank.csv', 'input,gold\nx,p\n,n\n'), /blank\.csv:3: expected a string "input" that is not blank|blank\.csv:3: expected a string "input", got/);
  await refuses(rows('ragged.csv', 'input,gold\nx,p\na,b,n\n'), /ragged\.csv:3: expected 2 fields, got 3: a field that holds "," /);
  await refuses(rows('short.csv', 'input,gold\nx\n'), /short\.csv:2: expected 2 fields, got 1/);
  await refuses(rows('twice.csv', 'input,gold,Input\nx,p,y\n'), /twice\.csv:1: expected one column "input", got 2/);
  await refuses(rows('text.csv', 'Text,label\nx,p\n'), /text\.csv:1: expected a header with a column "input", got Text, label; rename "Text" to "input"/);
  await refuses(rows('open.csv', 'input,gold\nx,p\n"y,n\nz,p\n'), /open\.csv:3: expected a closing quote, got the end of the file/);
  await refuses(rows('over.csv', 'input,gold\n"abc,p\nsecond,n\n"third",p\n'), /over\.csv:[24]: expected/);
  await refuses(rows('inner.csv', 'input,gold\n"say "hi" now",p\n'), /inner\.csv:2: expected a field between quotes to write a quote inside of it twice/);
});

test('JSON is read as lines or as a list, and a mistake is named by line and column', async () => {
  assert.deepEqual(await rows('list.json', '[\n  {"input": "a, [b] \\"c\\"", "gold": "p"},\n\n  {"input": "d"}\n]\n'), ['2 a, [b] "c" → p', '4 d']);
  assert.deepEqual(await rows('lines.json', '{"input":"a"}\n{"input":"b"}\n'), ['1 a', '2 b']);
  assert.deepEqual(await rows('empty.json', '[]'), []);
  await refuses(rows('comma.jsonl', '{"input":"a"}\n{"input":"b",}'), /comma\.jsonl:2: expected one JSON object a line, got "}" after a comma in column 14 of/);
  await refuses(rows('nan.jsonl', '{"input":"a","score":NaN}'), /nan\.jsonl:1: .*got "NaN}" in column 22/);
  await refuses(rows('nan.json', '[\n {"input":"a"},\n {"input":NaN}]'), /nan\.json:3: expected a list of rows.*got "NaN}]" in column 11/);
  await refuses(rows('half.json', '[{"input":"a"}'), /half\.json:1: .*got its end/);
  await refuses(rows('list.jsonl', '[\n{"input":"a"}]'), /list\.jsonl:1: expected one JSON object a line/);
  await refuses(rows('number.jsonl', '5'), /number\.jsonl:1: expected a string "input", got "5"/);
});

test('outputs may be numbers, true and false, as they are spelled; null and blank are none', async () => {
  const lines = ['1', '1.0', '-1', 'true', '12345678901234567890', 'null', '""', '" "'].map((gold, index) => `{"input":"${index}","gold":${gold}}`).join('\n');
  assert.deepEqual(await rows('n.jsonl', lines), ['1 0 → 1', '2 1 → 1.0', '3 2 → -1', '4 3 → true', '5 4 → 12345678901234567890', '6 5', '7 6', '8 7']);
  await refuses(rows('o.jsonl', '{"input":"a","gold":["x"]}'), /o\.jsonl:1: expected "gold" to be a string, a number, true or false, got/);
  await refuses(rows('i.jsonl', '{"input":7}'), /i\.jsonl:1: expected a string "input", got "7"/);
  await refuses(rows('t.jsonl', '{"text":"y"}'), /t\.jsonl:1: expected a string "input", got .*; rename "text" to "input"/);
  await refuses(rows('b.jsonl', '{"input":" ","gold":"p"}'), /b\.jsonl:1: expected a string "input" that is not blank/);
});

test('characters that no store keeps are refused', async () => {
  await refuses(rows('nul.jsonl', '{"input":"a"}\n{"input":"a\\u0000b"}'), /nul\.jsonl:2: expected "input" without NUL characters/);
  await refuses(rows('half.jsonl', '{"input":"a\\ud83d"}'), /half\.jsonl:1: expected "input" of whole characters, got half of a surrogate pair/);
  await refuses(learned('half.jsonl', '{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"\\udc00"}]}'), /half\.jsonl:1: expected messages\[1\] of whole characters/);
});

const OPENAI = { messages: [{ role: 'developer', content: 'Be brief.' }, { role: 'user', content: [{ type: 'text', text: 'What is ' }, { type: 'text', text: 'it?' }] }, { role: 'assistant', content: 'This.' }] };
const SHAREGPT = { conversations: [{ from: 'system', value: 'Be brief.' }, { from: 'human', value: 'What is it?' }, { from: 'gpt', value: 'This.' }] };
const ALPACA = { instruction: 'Translate.', input: 'Hallo', output: 'Hello' };

test('messages of OpenAI, conversations of ShareGPT and rows of Alpaca are inputs of a campaign and rows to learn', async () => {
  const file = [OPENAI, SHAREGPT, ALPACA, { ...ALPACA, input: '' }].map((row) => JSON.stringify(row)).join('\n');
  assert.deepEqual(await rows('forms.jsonl', file), ['1 What is it? → This.', '2 What is it? → This.', '3 Translate.\n\nHallo → Hello', '4 Translate. → Hello']);
  assert.deepEqual(await learned('forms.jsonl', file), ['system: Be brief. | user: What is it? | assistant: This.', 'system: Be brief. | user: What is it? | assistant: This.', 'user: Translate.\n\nHallo | assistant: Hello', 'user: Translate. | assistant: Hello']);
  assert.deepEqual(await rows('question.jsonl', JSON.stringify({ messages: OPENAI.messages.slice(0, 2) })), ['1 What is it?']);
  assert.deepEqual(await learned('alpaca.csv', 'instruction,input,output\nTranslate.,Hallo,Hello\nSay hi.,,Hi\n'), ['user: Translate.\n\nHallo | assistant: Hello', 'user: Say hi. | assistant: Hi']);
});

test('a conversation of several questions is learned, and refused as an input with its line and why', async () => {
  const turns = { conversations: [...SHAREGPT.conversations, { from: 'human', value: 'And?' }, { from: 'gpt', value: 'That.' }] };
  assert.deepEqual(await learned('turns.jsonl', JSON.stringify(turns)), ['system: Be brief. | user: What is it? | assistant: This. | user: And? | assistant: That.']);
  await refuses(rows('turns.jsonl', JSON.stringify(turns)), /turns\.jsonl:1: expected a chat of one user message, .* single inputs, got the roles system, user, assistant, user, assistant/);
  await refuses(rows('image.jsonl', JSON.stringify({ messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] })), /messages\[0\] to be a text or a list of text parts, got .*image_url/);
  await refuses(learned('tool.jsonl', JSON.stringify({ messages: [{ role: 'tool', content: 'x' }] })), /tool\.jsonl:1: expected messages\[0\] to be of one of the roles system, developer, user/);
  await refuses(learned('open.jsonl', JSON.stringify({ messages: OPENAI.messages.slice(0, 2) })), /open\.jsonl:1: expected \{"messages"/);
  await refuses(learned('none.jsonl', '\n'), /none\.jsonl: expected rows, got none/);
});
