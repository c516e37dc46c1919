# The vulnerable Rack application. Uploads are plugins: Ruby sources with a method `run(cmd)`.
require 'erb'
require 'net/http'
require 'open3'
require 'rack'

class Vulnerable
  DIRECTORY = ENV.fetch('DIR')

  def call(env)
    query = Rack::Utils.parse_query(env['QUERY_STRING'])
    status, body = answer(env['PATH_INFO'], query, env)
    [status, { 'Content-Type' => 'text/plain', 'Content-Length' => body.bytesize.to_s }, [body]]
  end

  private

  def answer(path, query, env)
    case path
    when '/orders' then orders(query['n'])
    when '/ping' then [200, ping(parameter(query, 'host'))]
    when '/render' then [200, ERB.new(parameter(query, 'tpl')).result]
    when '/fetch' then fetch(query['url'].to_s)
    when '/file' then file(query['path'])
    when '/upload' then upload(query['name'], env['rack.input'].read)
    when %r{\A/uploads/([^/]+)\z} then [200, plugin($1, query['cmd'])]
    when '/convert' then convert(query['text'].to_s)
    when '/later' then later(query['cmd'])
    else [404, "not found\n"]
    end
  end

  def parameter(query, name)
    value = query[name].to_s
    query['r'] == '1' ? value.reverse : value
  end

  def orders(number)
    sleep 0.004
    [200, "orders #{number}\n"]
  end

  # Ruby starts a shell only where it sees a character that needs one.
  def ping(host)
    `echo ping #{host} 2>&1`
  end

  def fetch(url)
    uri = URI(url)
    response = Net::HTTP.new(uri.host, uri.port, nil).request_get(uri.request_uri)
    response.is_a?(Net::HTTPSuccess) ? [200, response.body] : [502, "no answer\n"]
  rescue StandardError
    [502, "no answer\n"]
  end

  def file(path)
    [200, File.binread("#{DIRECTORY}/public/#{path}")]
  rescue SystemCallError
    [404, "not found\n"]
  end

  def upload(name, content)
    File.binwrite(uploaded(name), content)
    [200, "stored\n"]
  end

  def plugin(name, command)
    plugin = Object.new
    plugin.instance_eval(File.read(uploaded(name)), name)
    plugin.run(command)
  end

  def uploaded(name)
    "#{DIRECTORY}/uploads/#{File.basename(name)}"
  end

  def convert(number)
    return [200, "not a number\n"] unless number.match?(/\A[0-9]+\z/)

    [200, Open3.capture2('/usr/bin/factor', number).first]
  end

  def later(command)
    Thread.new do
      sleep 2
      system('sh', '-c', command)
    end
    [200, "later\n"]
  end
end

run Vulnerable.new
