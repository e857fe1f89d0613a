// Checks by their types that the names which the build makes short are this package's own: no object that an application, the
// browser, a node, another tab or an earlier version makes or reads has a property of such a name.
import ts from 'typescript';
import { SHORTENED } from './shortened.js';

/** What has to be told beside exports and the library's types: it is read by others, or outlives the page. */
const TOLD = {
  'src/frames.ts': ['ClientFrames', 'ServerFrames'],
  'src/tabs/messages.ts': ['TabMessage'],
  'src/indexeddb_outbox.ts': ['Stored'],
  'src/race_memory.ts': ['Remembered'],
};
const ENTRIES = ['src/index.ts', 'src/core.ts', 'src/msgpack.ts', 'src/indexeddb_outbox.ts', 'src/shared_skywave.ts'];

const names = new Set(SHORTENED);
const { config } = ts.readConfigFile('tsconfig.build.json', ts.sys.readFile);
const { fileNames, options } = ts.parseJsonConfigFileContent(config, ts.sys, process.cwd());
const program = ts.createProgram(fileNames, options);
const checker = program.getTypeChecker();
const problems = new Set();
const used = new Set();

function place(node) {
  const file = node.getSourceFile();
  const { line } = file.getLineAndCharacterOfPosition(node.getStart());
  return `${file.fileName.replace(`${process.cwd()}/`, '')}:${line + 1}`;
}

const isOwn = (declaration) => declaration.getSourceFile().fileName.startsWith(`${process.cwd()}/src/`);
const isForeign = (symbol) => (symbol?.declarations ?? []).some((declaration) => !isOwn(declaration));

/** Of a type that is written down where a value is taken for it: it may be anybody's. */
const isClaimed = (symbol) => (symbol?.declarations ?? []).some((declaration) => ts.findAncestor(declaration, ts.isAsExpression) !== undefined);

/** A shortened name that is reached in the code: what it names has to be declared in the code. */
function reached(name, node, symbols) {
  used.add(name);
  if (symbols.some(isClaimed)) problems.add(`${place(node)}: \`${name}\` is of a type that is only claimed`);
  if (symbols.length === 0 || symbols.some((symbol) => !symbol?.declarations?.length)) problems.add(`${place(node)}: whose \`${name}\` it is cannot be told`);
  else if (symbols.some(isForeign)) problems.add(`${place(node)}: \`${name}\` is not this package's own`);
}

/** What a literal or a pattern says of the object that is expected there. */
function expected(node, name) {
  const type = ts.isObjectLiteralExpression(node) ? checker.getContextualType(node) : checker.getTypeAtLocation(node);
  return (type?.isUnion() ? type.types : [type]).flatMap((one) => one?.getProperty(name) ?? []);
}

function visit(node) {
  if (ts.isPropertyAccessExpression(node) && names.has(node.name.text)) reached(node.name.text, node, [checker.getSymbolAtLocation(node.name)]);
  if (ts.isStringLiteralLike(node) && names.has(node.text)) {
    const isKey = ts.isElementAccessExpression(node.parent) || (ts.isBinaryExpression(node.parent) && node.parent.operatorToken.kind === ts.SyntaxKind.InKeyword);
    if (isKey || node.parent.name === node) problems.add(`${place(node)}: '${node.text}' is reached by a text, which stays as it is`);
  }
  const isPart = ts.isObjectLiteralElementLike(node) && ts.isObjectLiteralExpression(node.parent);
  const isPattern = ts.isBindingElement(node) && ts.isObjectBindingPattern(node.parent);
  const part = isPart ? node.name : isPattern ? (node.propertyName ?? node.name) : undefined;
  if (part !== undefined && ts.isIdentifier(part) && names.has(part.text)) {
    const symbols = expected(node.parent, part.text);
    reached(part.text, node, symbols.length > 0 || isPattern ? symbols : [checker.getSymbolAtLocation(part)]);
  }
  ts.forEachChild(node, visit);
}

const seen = new Set();
const isHidden = (symbol) =>
  symbol.getJsDocTags(checker).some(({ name }) => name === 'internal') ||
  (symbol.declarations ?? []).some(({ name }) => name !== undefined && ts.isPrivateIdentifier(name));

/** Follows a type that is for others to make or read. */
function told(type, path) {
  if (seen.has(type)) return;
  seen.add(type);
  for (const part of type.isUnionOrIntersection() ? type.types : []) told(part, path);
  for (const argument of [...(type.aliasTypeArguments ?? []), ...(checker.getTypeArguments(type) ?? [])]) told(argument, path);
  const constraint = type.isTypeParameter() ? type.getConstraint() : undefined;
  if (constraint !== undefined) told(constraint, path);
  for (const symbol of type.getProperties()) {
    if (!(symbol.declarations ?? []).some(isOwn) || isHidden(symbol)) continue;
    if (names.has(symbol.name)) problems.add(`${path}.${symbol.name} is for others`);
    told(checker.getTypeOfSymbol(symbol), `${path}.${symbol.name}`);
  }
  for (const signature of [...type.getCallSignatures(), ...type.getConstructSignatures()]) toldSignature(signature, path);
}

function toldSignature(signature, path) {
  if (signature.declaration === undefined || !isOwn(signature.declaration)) return;
  if (signature.getJsDocTags().some(({ name }) => name === 'internal')) return;
  for (const parameter of signature.parameters) told(checker.getTypeOfSymbol(parameter), `${path}(${parameter.name})`);
  told(signature.getReturnType(), `${path}()`);
}

for (const file of program.getSourceFiles()) if (isOwn(file)) visit(file);
for (const entry of ENTRIES) {
  for (const exported of checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(entry)))) {
    const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
    told(checker.getDeclaredTypeOfSymbol(symbol), exported.name);
    if (symbol.flags & ts.SymbolFlags.Value) told(checker.getTypeOfSymbol(symbol), exported.name);
  }
}
for (const [file, types] of Object.entries(TOLD)) {
  const statements = program.getSourceFile(file)?.statements ?? [];
  for (const name of types) {
    const declaration = statements.find((statement) => statement.name?.text === name);
    if (declaration === undefined) problems.add(`${file}: there is no ${name}`);
    else told(checker.getTypeAtLocation(declaration), name);
  }
}
for (const name of names) if (!used.has(name)) problems.add(`\`${name}\` is not reached anywhere`);
if (SHORTENED.length > names.size) problems.add('a name is listed twice');

for (const problem of problems) console.error(problem);
if (problems.size > 0) process.exitCode = 1;
