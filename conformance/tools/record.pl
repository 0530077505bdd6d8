#!/usr/bin/perl
# record.pl COMMAND [ARGUMENT]... >FILE.svg - run a demo on a terminal of its own and draw what it wrote: a picture that moves on by itself, with
# a frame for each step: short steps share one, and long ones take several.
#
# Nothing is fetched and nothing is made up: the text is that of the run. Only the kernel's build, which says more of the machine than of
# trestle, is cut off its version. Status: the demo's, and then nothing is drawn.
use strict;
use warnings;
use utf8;

my ($columns, $rows, $line_height, $char_width) = (120, 30, 17, 7.83);
my ($seconds_a_frame, $seconds_a_line) = (2.5, 0.2);

my $command = join ' ', map { s/'/'\\''/gr =~ s/(.*)/'$1'/sr } @ARGV;
open my $run, '-|', 'script', '-qec', $command, '/dev/null' or die "record: start script: $!\n";
binmode $run, ':encoding(UTF-8)';
my @lines = map { s/[\r\n]+$//r =~ s/kernel (\d+\.\d+)\S*/kernel $1/r } <$run>;
close $run or die "record: the demo failed:\n", map {"$_\n"} @lines;

# A frame begins with a step's title and, where a step takes several, with its title again.
my (@frames, $title);
for my $line (@lines) {
    my $is_title = $line =~ /^\e\[1m\d+\. /;
    if ($is_title) { $title = $line; push @frames, [$title, ''] }
    elsif (!@frames) { push @frames, []; redo }
    elsif (@{ $frames[-1] } >= $rows) { push @frames, [defined $title ? ($title, '') : ()]; redo }
    else { push @{ $frames[-1] }, $line }
}
for my $frame (@frames) {
    shift @$frame while @$frame && $frame->[0] eq '';
    pop @$frame   while @$frame && $frame->[-1] eq '';
}
# Short steps share a frame.
my @steps = grep {@$_} @frames;
@frames = ();
for my $step (@steps) {
    if (@frames && @{ $frames[-1] } + 1 + @$step <= $rows) { push @{ $frames[-1] }, '', @$step }
    else { push @frames, [@$step] }
}

# One line as SVG text, bold and dim as the terminal had it.
sub drawn {
    my ($line, $y) = @_;
    1 while $line =~ s/^([^\t]*)\t/$1 . ' ' x (8 - length($1) % 8)/e;
    my $class = $line =~ /\e\[1m/ ? ' class="b"' : $line =~ /\e\[2m/ ? ' class="c"' : '';
    $line =~ s/\e\[\d*m//g;
    substr($line, $columns - 1) = '…' if length $line > $columns;
    $line =~ s/&/&amp;/g;
    $line =~ s/</&lt;/g;
    $line =~ s/\s+$//;
    return '' if $line eq '';
    return qq(<text x="16" y="$y"$class>$line</text>\n);
}

my @times = map { $seconds_a_frame + $seconds_a_line * @$_ } @frames;
my $total = 0;
$total += $_ for @times;
my ($width, $height) = (32 + $columns * $char_width, 32 + $rows * $line_height);
binmode STDOUT, ':encoding(UTF-8)';
printf qq(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace" font-size="13">\n), $width, $height;
print <<'STYLE';
<style>
.back{fill:#fafafa;stroke:#c8c8c8}.bar{fill:#2563a8}
text{fill:#24292f;white-space:pre}.b{font-weight:bold}.c{fill:#2563a8}
@media(prefers-color-scheme:dark){.back{fill:#15191e;stroke:#3a424c}.bar{fill:#7ab7ff}text{fill:#dde3ea}.c{fill:#7ab7ff}}
g{visibility:hidden}
STYLE
my $from = 0;
for my $index (0 .. $#frames) {
    my ($begin, $end) = map { 100 * $_ / $total } $from, $from + $times[$index];
    # The first frame is what a viewer without animations shows.
    my $rest = $index == 0 ? '' : ' 0%{visibility:hidden}';
    printf "\@keyframes f%d{%s %.3f%%{visibility:visible} %.3f%%,100%%{visibility:hidden}}\n", $index, $rest, $begin, $end;
    printf "#f%d{%sanimation:f%d %.1fs step-end infinite}\n", $index, ($index == 0 ? 'visibility:visible;' : ''), $index, $total;
    $from += $times[$index];
}
printf "\@keyframes bar{from{transform:scaleX(0)}to{transform:scaleX(1)}}\n.bar{animation:bar %.1fs linear infinite}\n</style>\n", $total;
printf qq(<rect class="back" x="0.5" y="0.5" width="%d" height="%d" rx="6"/>\n), $width - 1, $height - 1;
printf qq(<rect class="bar" x="8" y="%d" width="%d" height="2"/>\n), $height - 8, $width - 16;
for my $index (0 .. $#frames) {
    print qq(<g id="f$index">\n);
    my $y = 12;
    print drawn($_, $y += $line_height) for @{ $frames[$index] };
    print "</g>\n";
}
print "</svg>\n";
