// An agent on Node.js that follows links with fetch.
const [first, authorization, second] = process.argv.slice(2);
const pages = [];
for (const url of [first, second]) {
  const answer = await fetch(url, { headers: { authorization } });
  pages.push(await answer.json());
}
console.log(JSON.stringify(pages));
