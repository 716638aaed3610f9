// The task API in Hono (hono/aws-lambda) + pg (node-postgres).
import { Hono } from 'hono'
import { HTTPException } from 'hono/http-exception'
import { handle } from 'hono/aws-lambda'
import pg from 'pg'

// The URL from the environment or, if SECRET_ID is set, from that secret in AWS Secrets Manager.
async function databaseUrl() {
  if (!process.env.SECRET_ID) return process.env.DATABASE_URL
  const { GetSecretValueCommand, SecretsManagerClient } = await import('@aws-sdk/client-secrets-manager')
  const secret = await new SecretsManagerClient({}).send(new GetSecretValueCommand({ SecretId: process.env.SECRET_ID }))
  return JSON.parse(secret.SecretString).DATABASE_URL
}

const pool = new pg.Pool({ connectionString: await databaseUrl(), max: 1 })
const COLUMNS = 'id, user_id, title, description, completed, created_at, updated_at'

const app = new Hono()

app.onError((err, c) => {
  if (err instanceof HTTPException) return c.json({ detail: err.message }, err.status)
  console.error(err)
  return c.json({ detail: 'Internal server error' }, 500)
})

app.use('/api/*', async (c, next) => {
  const token = c.req.header('authorization')?.match(/^Bearer (.+)$/)?.[1]
  const { rows } = token
    ? await pool.query("SELECT user_id FROM session WHERE token = $1 AND expires_at > now() AT TIME ZONE 'UTC'", [token])
    : { rows: [] }
  if (rows.length === 0) throw new HTTPException(401, { message: 'Invalid or expired session' })
  c.set('userId', rows[0].user_id)
  await next()
})

const int = (value, fallback, min, max) => {
  if (value === undefined) return fallback
  if (!/^\d+$/.test(value) || Number(value) < min || Number(value) > max) throw new HTTPException(422, { message: 'bad number' })
  return Number(value)
}

const taskId = (c) => {
  const id = Number(c.req.param('id'))
  if (!Number.isInteger(id) || id < 1 || id > 2147483647) throw new HTTPException(404, { message: 'Task not found' })
  return id
}

const taskBody = async (c) => {
  const body = await c.req.json().catch(() => null)
  const title = body?.title
  const description = body?.description ?? null
  if (typeof title !== 'string' || [...title].length < 1 || [...title].length > 200) {
    throw new HTTPException(422, { message: 'title must have 1 to 200 characters' })
  }
  if (description !== null && typeof description !== 'string') throw new HTTPException(422, { message: 'description must be text' })
  return { title, description }
}

const one = ({ rows }) => {
  if (rows.length === 0) throw new HTTPException(404, { message: 'Task not found' })
  return rows[0]
}

app.get('/api/tasks', async (c) => {
  const completed = { all: null, pending: false, completed: true }[c.req.query('status') ?? 'all']
  if (completed === undefined) throw new HTTPException(422, { message: 'bad status' })
  const { rows } = await pool.query(
    `SELECT ${COLUMNS} FROM tasks WHERE user_id = $1 AND ($2::boolean IS NULL OR completed = $2)
     ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4`,
    [c.get('userId'), completed, int(c.req.query('limit'), 50, 1, 100), int(c.req.query('offset'), 0, 0, 1e9)],
  )
  return c.json(rows)
})

app.post('/api/tasks', async (c) => {
  const { title, description } = await taskBody(c)
  const task = one(await pool.query(
    `INSERT INTO tasks (user_id, title, description) VALUES ($1, $2, $3) RETURNING ${COLUMNS}`,
    [c.get('userId'), title, description],
  ))
  return c.json(task, 201)
})

app.get('/api/tasks/:id', async (c) => c.json(one(await pool.query(
  `SELECT ${COLUMNS} FROM tasks WHERE id = $1 AND user_id = $2`, [taskId(c), c.get('userId')]))))

app.put('/api/tasks/:id', async (c) => {
  const { title, description } = await taskBody(c)
  return c.json(one(await pool.query(
    `UPDATE tasks SET title = $3, description = $4, updated_at = now() WHERE id = $1 AND user_id = $2 RETURNING ${COLUMNS}`,
    [taskId(c), c.get('userId'), title, description],
  )))
})

app.patch('/api/tasks/:id/complete', async (c) => c.json(one(await pool.query(
  `UPDATE tasks SET completed = NOT completed, updated_at = now() WHERE id = $1 AND user_id = $2 RETURNING ${COLUMNS}`,
  [taskId(c), c.get('userId')]))))

app.delete('/api/tasks/:id', async (c) => {
  one(await pool.query('DELETE FROM tasks WHERE id = $1 AND user_id = $2 RETURNING id', [taskId(c), c.get('userId')]))
  return c.body(null, 204)
})

export const handler = handle(app)
