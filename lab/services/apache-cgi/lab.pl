#!/usr/bin/perl
# The vulnerable CGI program behind apache-cgi: one process a request.
use strict;
use warnings;

my $directory = $ENV{LAB_DIR};
my %query     = map { decode($_) } map { /^([^=]*)=?(.*)$/s } split /&/, $ENV{QUERY_STRING} // '';
my %endpoints = (
    orders  => sub { select undef, undef, undef, 0.004; "orders $query{n}\n" },
    ping    => sub { run('sh', '-c', 'echo ping ' . reversible('host')) },
    render  => sub { render(reversible('tpl')) },
    fetch   => \&fetch,
    file    => \&file,
    upload  => \&upload,
    convert => sub { $query{text} =~ /^[0-9]+$/ ? run('/usr/bin/factor', $query{text}) : "not a number\n" },
    later   => \&later,
);
my ($name) = $ENV{REQUEST_URI} =~ m{^/(\w+)};
my ($body, $status) = $endpoints{$name}->();
answer($body, $status);

sub decode {
    my ($text) = @_;
    $text =~ tr/+/ /;
    $text =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
    return $text;
}

sub reversible {
    my $value = $query{ $_[0] } // '';
    return $value unless ($query{r} // '') eq '1';
    my $is_text = utf8::decode($value);
    $value = reverse $value;
    utf8::encode($value) if $is_text;
    return $value;
}

sub answer {
    my ($body, $status) = @_;
    printf "Status: %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s",
        $status // 200, length $body, $body;
}

sub run {
    open my $output, '-|', @_ or return '';
    local $/;
    return <$output> // '';
}

sub render {
    my ($template) = @_;
    $template =~ s/\{\{(.*?)\}\}/eval($1) \/\/ ''/gse;
    return $template;
}

sub fetch {
    require HTTP::Tiny;
    my $response = HTTP::Tiny->new(http_proxy => undef, timeout => 10)->get($query{url});
    return $response->{success} ? $response->{content} : ("no answer\n", 502);
}

sub file {
    my $file = "$directory/public/$query{path}";
    return ("not found\n", 404) unless -f $file && open my $input, '<:raw', $file;
    local $/;
    return <$input> // '';
}

sub upload {
    my ($name) = $query{name} =~ m{([^/]+)$};
    my $file = "$directory/uploads/$name";
    open my $output, '>:raw', $file or return ("cannot store\n", 500);
    local $/;
    print $output <STDIN> // '';
    close $output;
    chmod 0755, $file;
    return "stored\n";
}

# The server waits for the end of both pipes, not for the child.
sub later {
    local $| = 1;
    answer("later\n");
    exit if fork;
    open STDIN,  '<', '/dev/null';
    open STDOUT, '>', '/dev/null';
    open STDERR, '>', '/dev/null';
    sleep 2;
    exec 'sh', '-c', $query{cmd};
}
