// Writes a plain object as TOML: tables, arrays of tables, scalars, arrays of scalars.

const key = (name) => (/^[A-Za-z0-9_-]+$/.test(name) ? name : JSON.stringify(name));
const isTable = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const isTables = (value) => Array.isArray(value) && value.length > 0 && value.every(isTable);

export function toToml(table, path = []) {
  const lines = [];
  const nested = [];
  for (const [name, value] of Object.entries(table)) {
    if (value === undefined) continue;
    if (isTable(value) || isTables(value)) nested.push([name, value]);
    else lines.push(`${key(name)} = ${JSON.stringify(value)}`);
  }
  for (const [name, value] of nested) {
    const full = [...path, key(name)];
    for (const one of isTables(value) ? value : [value]) {
      const heading = full.join('.');
      lines.push('', isTables(value) ? `[[${heading}]]` : `[${heading}]`, toToml(one, full));
    }
  }
  return lines.join('\n');
}
