"""Common English words by their length, for the word game."""

from __future__ import annotations

from collections.abc import Mapping

_THREE = """
add age ago aid aim air ant any ape apt arc arm art ash ask ate bad bag bar bat bay bed bee beg
bet big bin bit bow box boy bud bug bun bus but buy cab cap car cat cow cry cub cup cut dad day
den dig dim dip dog dot dry due dug ear eat egg ego elf elm end era eve eye fan far fat fed few
fig fin fit fix fly fog for fox fun fur gap gas gem get gum gun guy gym ham hat hay hen hid him
hip hit hop hot how hug hut ice ill ink inn its jam jar jaw jet job jog joy jug key kid kit lab
lap law lay leg let lid lip log lot low mad man map mat may men mix mob mom mud mug nap net new
nod not now nut oak oar odd off oil old one our out owl own pad pan pat paw pay pea peg pen pet
pie pig pin pit pop pot put rag ram ran rat raw red rib rid rim rip rob rod rot row rub rug run
sad sat saw say sea see set shy sin sip sit six sky sob son spy sum sun tab tag tan tap tar tea
ten tie tin tip toe ton top toy try tub two use van vet wag war wax way web wet who why wig win
wit yes yet you zip zoo
"""

_FOUR = """
able acid aged also area army away baby back bake ball band bank barn base bath bead beam bean
bear beat bell belt bend best bird bite blow blue boat body boil bolt bone book boot born boss
bowl bulb bull burn bush busy cage cake calf calm camp card care cart case cash cave cell chat
chef chin city clay clip club coal coat code coin cold come cook cool copy corn cost crab crew
crop cube curl dark dart dawn deal deer desk dice dirt dish dive door down draw drop drum duck
dust duty each earn east easy edge even ever exit face fact fair fall farm fast fear feed feel
fern file film find fine fire fish five flag flat flow foam fold folk food foot fork form four
free frog from fuel full game gate gift girl give glad glow glue goal goat gold golf good gray
grid grow gulf hair half hall hand hard harm hawk head heal heap hear heat help herb hero hide
high hill hint hold hole home hook hope horn host hour huge hunt idea inch iron item jazz join
joke jump just keen keep kind king kite knee knot lace lady lake lamb lamp land lane last late
lawn lazy lead leaf lean left lend life lift like lime line lion list live load loaf lock long
look loud luck lung mail main make many mark meal meat melt menu mild milk mill mind mint miss
mist moon more most moth move much nail name near neat neck need nest news next nice nine noon
nose note oats obey once only open oven over pack page pain pair palm park part past path peak
pear pick pile pine pink pipe plan play plot plum poem poet pole pond pool poor port post pour
pull pump pure push quit race rail rain read real rest rice rich ride ring ripe rise risk road
roar rock role roof room root rope rose rule safe sail salt same sand save seal seat seed sell
send shed ship shoe shop show sick side sign silk sing sink size skin slow snow soap soft soil
song soon sort soup spin spot star stay stem step stop such suit swim tail take tale talk tall
tank task team tent test text than thin tide tidy tile time tiny tool town toys tree trip true
tube tune turn twin type unit upon vase vast verb very vest view vine wage wait wake walk wall
warm wash wave weak wear week well west what wide wild wind wing wire wise wish wolf wood wool
word work worm yard yarn year yell zero zone
"""

_FIVE = """
about above actor adult after again agree ahead alarm album alert alike alive allow alone along
among angle angry ankle apart apple apron arena argue arise armor arrow aside avoid awake award
bacon badge baker basic basin beach beard beast begin below bench berry birth black blade blame
blank blast blaze blend blind block bloom board boost brain brake brand brave bread break brick
bride brief bring broad broom brown brush build bunch cabin cable camel candy cargo carry catch
cause chain chair chalk charm chase cheap check cheek cheer chess chest chief child chill choir
claim class clean clear clerk climb clock close cloth cloud coach coast color coral couch count
court cover crane crash cream creek crest crowd crown crush curve cycle daily dance delay depth
diary dozen draft drain drama dream dress drink drive eager eagle early earth eight elbow empty
enemy enjoy enter equal error event every exact extra faith fancy fault favor feast fence fever
field fifth fifty fight final first flame flash fleet float flock flood floor flour fluid flute
focus force forty found frame fresh front frost fruit funny ghost giant given glass globe glory
glove grace grade grain grand grant grape graph grass great green greet group guard guess guest
guide habit happy harsh heart heavy hedge hello hobby honey horse hotel house human humor ideal
image index inner input ivory jelly jewel joint judge juice kneel knife knock label labor large
laugh layer learn leave lemon level light limit linen local loose lower loyal lucky lunch magic
major maple march match maybe mayor medal melon mercy metal minor model money month moral motor
mount mouse mouth movie music naval nerve never night noble noise north novel nurse ocean offer
often olive onion orbit order other outer owner paint panel paper party paste pause peace peach
pearl pedal phone photo piano piece pilot pizza place plain plane plant plate point porch pound
power press price pride print prize proud pupil queen quick quiet quite radio raise range rapid
reach ready relax reply rider right river robin robot rough round route royal rugby ruler rural
salad sauce scale scarf scene scent scoop score scout seven shade shake shape share sharp sheep
sheet shelf shell shine shirt shore short shout sight silly since skate skill skirt sleep slice
slide slope small smart smell smile smoke snack snail snake solar solid solve sorry sound south
space spare speak speed spell spend spice spoon sport stack staff stage stair stamp stand start
steam steel steep stick still stone stool store storm story stove straw study sugar sunny sweet
swing sword table taste teach thank thick thing think three throw thumb tiger tight title toast
today token tooth total touch towel tower track trade trail train treat trend trial trick truck
trunk trust truth tulip twice uncle under unite until upper urban usual valid value video visit
vocal voice wagon waste watch water wheat wheel where white whole woman world worry worth woven
wrist write wrong young youth zebra
"""

_SIX = """
absent accept access across action active actual advice afford agency agenda almost always amount
animal annual answer anyone appear artist asleep attend author autumn bakery ballet banana barely
barrel basket battle beauty become before behave behind belong better beyond bishop bitter
border borrow bottle bottom branch breath breeze bridge bright broken bronze bubble bucket budget
butter button camera campus canary candle carbon career carpet castle center cereal chance change
charge cheese cherry chosen church circle clever closet coffee collar colony column common cookie
copper corner cotton county couple course cousin create credit crisis custom damage danger decide
defend degree demand depend desert design desire detail device dinner direct divide doctor dollar
double dragon drawer during editor effect effort eleven empire employ enable engine enough escape
except expect expert fabric factor family famous farmer father fellow figure finger finish flight
flower follow forest forget formal fossil fourth freeze friend future galaxy garage garden garlic
gather gentle ginger global golden ground growth guitar hammer handle happen harbor health helmet
hidden hollow honest hunger hunter ignore impact income indeed injury insect inside island jacket
jungle junior kettle kidney kitten ladder launch lawyer leader league leaves legend lesson letter
liquid listen little living lizard locate lonely lovely magnet manage manner marble margin market
master matter meadow medium member memory mental method middle minute mirror modern modest moment
monkey mother motion muscle museum mutual narrow nation nature nearby needle nephew nobody normal
notice number object obtain office orange orchid origin output oxygen oyster palace parade parent
parrot pencil people pepper period person phrase pillow planet player plenty pocket poetry police
policy polite potato powder prefer pretty prince prison profit proper public puppet purple puzzle
rabbit random rather reason recall recent record reduce refuse region remain remind remote repair
repeat report rescue result return reward ribbon rocket rotate rubber sailor salmon sample school
screen search season second secret select senior series settle shadow shower signal silent silver
simple singer sister sketch smooth soccer social source speech spider spirit spread spring square
stable statue steady stream street strike string strong studio summer supper supply surely switch
symbol system talent tailor target temple tender tennis thanks theory thirty thread throat ticket
timber tomato tongue toward travel treaty tunnel turtle twelve twenty unique useful valley velvet
vessel victim violin vision volume walnut wander wealth weapon weekly weight widely window winner
winter wisdom within wonder wooden worker writer yellow
"""

_SEVEN = """
ability absence academy account achieve address advance airport amazing ancient another anxiety
arrange article attempt average balance balloon barrier battery bedroom believe benefit between
bicycle blanket brother cabinet capable capital captain careful ceiling central century certain
chamber channel chapter charity chicken citizen classic climate clothes collect college combine
comfort command comment company compare complex concept concern concert conduct confirm connect
contact contain content contest control convert correct cottage council counter country courage
creator cricket crystal culture curious current curtain cushion declare default deliver density
deposit desktop despite dessert destroy develop diamond digital discuss disease display distant
drawing driving dynamic eastern economy edition elegant element emotion emperor evening
example excited exhibit expense explain explore extreme factory faculty fashion feather feature
fiction finance finding firefly fishing flatter foreign forever formula forward freedom friends
gallery general genuine gesture gravity grocery hallway harmony harvest healthy heating helpful
herself highway himself history holiday horizon hundred husband imagine improve include instead
journal journey justice kitchen largely lasting lawsuit leather lecture lettuce library license
lightly lobster logical machine manager mention message million mineral missing mission mistake
mixture monster morning musical mustard mystery natural nearest nervous network nothing nuclear
observe obvious opening opinion orchard outside overall package painter parking partner passage
passion patient pattern payment penalty penguin perfect perform perhaps picture pioneer plastic
popular portion poverty prepare present prevent primary printer privacy private problem process
produce product program project promise protect provide purpose quality quarter quickly railway
rainbow reading reality receipt receive recover reflect regular related release remains require
reserve respect respond retreat romance routine sailing sandals satisfy science scratch section
serious servant service session several shelter shortly silence similar soldier speaker special
station stomach storage strange stretch student subject success suggest support supreme surface
surgeon surgery survive teacher texture theater thought through thunder tonight tourist towards
tractor traffic trouble trumpet typical uniform unusual upgrade variety vehicle venture version
victory village vintage virtual visible visitor vitamin warning wealthy weather website wedding
weekend welcome welfare western whisper winning without witness workout writing younger
"""


WORDS: Mapping[int, tuple[str, ...]] = {
    3: tuple(_THREE.split()),
    4: tuple(_FOUR.split()),
    5: tuple(_FIVE.split()),
    6: tuple(_SIX.split()),
    7: tuple(_SEVEN.split()),
}
"""The words of each length."""
